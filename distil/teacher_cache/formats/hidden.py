"""The teacher's hidden states, with its head beside them: all that it says, at any temperature, for any
divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distil.config.schema import TeacherCacheConfig, check_choice
from distil.teacher_cache.formats.base import CacheFormat, Size, Stored, register_format

if TYPE_CHECKING:
    from torch import Tensor

    from distil.head import Dense, Head
    from distil.losses import Term


@dataclass
class HiddenConfig(TeacherCacheConfig):
    """Keys of ``teacher_cache=hidden``."""

    name: str = "hidden"
    dtype: str = "auto"
    """``auto``: as the teacher computes them, so that nothing is lost. ``bfloat16``, ``float16``: rounded to
    two bytes."""

    def __post_init__(self) -> None:
        check_choice("teacher_cache.dtype", self.dtype, ("auto", "bfloat16", "float16"))


@register_format("hidden", HiddenConfig)
class Hidden(CacheFormat[HiddenConfig]):
    """A dense signal, exact but for rounding."""

    needs_head = True
    cuts_vocabulary = False

    def __init__(self, config: HiddenConfig) -> None:
        super().__init__(config)
        rounded = "teacher_cache.dtype=bfloat16, or " if config.dtype == "auto" else ""
        self.smaller = f"take a smaller format: {rounded}teacher_cache=topk"

    def refusal(self, term: Term) -> str | None:
        """Nothing: what is stored is the whole distribution."""
        return None

    def bytes_per_token(self, size: Size) -> float:
        """One number a dimension."""
        return size.hidden * (size.hidden_bytes if self.config.dtype == "auto" else 2)

    def encode(self, said: Dense, rows_N: Sequence[int], shared_vocabulary: int) -> dict[str, Tensor]:
        """The hidden states in the dtype asked for."""
        import torch

        hidden_NH = said.hidden_NH
        if self.config.dtype != "auto":
            hidden_NH = hidden_NH.to(getattr(torch, self.config.dtype))
        return {"hidden_NH": hidden_NH.cpu()}

    def decode(self, stored: Stored, head: Head | None) -> Dense:
        """Hidden states and the head."""
        from distil.head import Dense

        assert head is not None, "hidden states without a head"
        return Dense(stored["hidden_NH"], head)
