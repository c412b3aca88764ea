"""No cache: the teacher runs beside the student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distil.config.schema import TeacherCacheConfig
from distil.teacher_cache.formats.base import CacheFormat, Size, Stored, register_format

if TYPE_CHECKING:
    from torch import Tensor

    from distil.head import Dense, Head
    from distil.losses import Term


@register_format("none", TeacherCacheConfig)
class NoCache(CacheFormat[TeacherCacheConfig]):
    """Nothing is stored."""

    stores = False

    def refusal(self, term: Term) -> str | None:
        """Nothing: a teacher that is there answers all."""
        return None

    def bytes_per_token(self, size: Size) -> float:
        """None."""
        return 0.0

    def encode(self, said: Dense, rows_N: Sequence[int], shared_vocabulary: int) -> dict[str, Tensor]:
        """Nothing is left of it."""
        raise NotImplementedError("teacher_cache=none stores nothing")

    def decode(self, stored: Stored, head: Head | None) -> Dense:
        """There is nothing to read."""
        raise NotImplementedError("teacher_cache=none stores nothing")
