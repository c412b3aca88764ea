"""Token ids in two bytes, and what two bytes do not hold beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from distil.teacher_cache.formats.base import Stored

QUARTERS = 4
"""Upper halves of ids below 2**18 that go into one byte."""


def upper_bytes(k: int, vocabulary: int) -> int:
    """Bytes beside two for each of ``k`` ids."""
    if vocabulary <= 2**16:
        return 0
    return -(-k // QUARTERS) if vocabulary <= 2**18 else k


def split_ids(ids_NK: Tensor, vocabulary: int) -> dict[str, Tensor]:
    """Ids below ``vocabulary`` (at most 2**24) as tensors to keep."""
    import torch

    kept = {"ids_NK": (ids_NK & 0xFFFF).to(torch.uint16)}
    n, k = ids_NK.shape
    if width := upper_bytes(k, vocabulary):
        upper_NK = (ids_NK >> 16).to(torch.uint8)
        if width < k:
            upper_NK = torch.nn.functional.pad(upper_NK, (0, width * QUARTERS - k))
            each_NBQ = upper_NK.view(n, width, QUARTERS) << _shifts(upper_NK)
            upper_NK = each_NBQ.sum(-1, dtype=torch.uint8)
        kept["upper_NB"] = upper_NK
    return kept


def join_ids(stored: Stored) -> Tensor:
    """What ``split_ids`` was given, in 32 bits."""
    import torch

    ids_NK = stored["ids_NK"].to(torch.int32)
    upper_NK = stored.get("upper_NB")
    if upper_NK is None:
        return ids_NK
    n, k = ids_NK.shape
    if upper_NK.shape[-1] < k:
        upper_NK = ((upper_NK[:, :, None] >> _shifts(upper_NK)) & 3).view(n, -1)[:, :k]
    return ids_NK.add_(upper_NK.to(torch.int32) << 16)


def _shifts(like: Tensor) -> Tensor:
    import torch

    return torch.arange(0, 8, 8 // QUARTERS, dtype=torch.uint8, device=like.device)
