"""Rows of unequal length as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distil.types import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor


def collate(rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """Right-padded ``input_ids``, ``attention_mask`` and ``labels``, each int64 of shape (B, T).

    Padding is told by its place, never by its id: where pad = EOS, the EOS that a row ends with stays scored.
    ``rows`` hold ``input_ids`` and ``labels`` as lists of one length; other columns are left out.
    """
    import torch

    shape = (len(rows), max(len(row["input_ids"]) for row in rows))
    input_ids_BT = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask_BT = torch.zeros(shape, dtype=torch.int64)
    labels_BT = torch.full(shape, IGNORE_INDEX, dtype=torch.int64)
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        input_ids_BT[index, :length] = torch.as_tensor(row["input_ids"])
        attention_mask_BT[index, :length] = 1
        labels_BT[index, :length] = torch.as_tensor(row["labels"])
    return {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT, "labels": labels_BT}
