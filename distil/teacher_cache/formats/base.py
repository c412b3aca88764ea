"""What a format is: which terms it can serve, how an answer becomes bytes and comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from distil.config.schema import TeacherCacheConfig
from distil.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from distil.head import Dense, Head
    from distil.losses import Term
    from distil.sparse import Sparse

Stored: TypeAlias = "Mapping[str, Tensor]"
"""Tensors by name, one entry a position in the order of the rows; those whose name ends in ``_M`` have as
many as ``entries_N`` says."""

C = TypeVar("C", bound=TeacherCacheConfig)


@dataclass(frozen=True)
class Size:
    """What the size of an answer hangs on."""

    vocabulary: int
    """Ids that teacher and student share."""
    hidden: int
    hidden_bytes: int
    """Of one number of the teacher's hidden states."""


class CacheFormat(ABC, Generic[C]):
    """One way to keep what a teacher says. Nothing heavy is imported before ``encode`` or ``decode``."""

    stores: ClassVar[bool] = True
    """False: nothing is kept, the teacher is asked each time."""
    needs_head: ClassVar[bool] = False
    """Whether ``decode`` needs the teacher's head."""
    cuts_vocabulary: ClassVar[bool] = True
    """Whether what is stored hangs on which ids the student shares."""
    smaller: str = "take another format"
    """What to give where it does not fit on the disk."""

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def refusal(self, term: Term) -> str | None:
        """Why ``term``, a divergence from the teacher, cannot be had from this, and the way out; else
        None."""

    def caution(self, term: Term, size: Size) -> str | None:
        """What to know before ``term`` is had from this, of answers of ``size``; None: nothing."""
        return None

    def cut(self, vocabulary: int) -> CacheFormat[C]:
        """This, asking for no more than a ``vocabulary`` of that many ids has."""
        return self

    @abstractmethod
    def bytes_per_token(self, size: Size) -> float:
        """Bytes of one position, about; shown before anything is built."""

    @abstractmethod
    def encode(self, said: Dense, rows_N: Sequence[int], shared_vocabulary: int) -> dict[str, Tensor]:
        """The answer at N positions as tensors to keep, on the CPU.

        ``rows_N``: the row that each position is of, in order; chance is drawn from it, so that batches do
        not matter.
        """

    @abstractmethod
    def decode(self, stored: Stored, head: Head | None) -> Dense | Sparse:
        """The signal that ``encode`` was given, as far as the format keeps it, on the device of
        ``stored``."""

    def settings(self) -> dict[str, Any]:
        """What tells two caches of this format apart, JSON."""
        return {key: value for key, value in asdict(self.config).items() if key != "folder"}


FORMATS: Registry[type[CacheFormat[Any]]] = Registry("teacher_cache", "distil.teacher_cache.formats")
register_format = FORMATS.register


def format_of(config: TeacherCacheConfig) -> CacheFormat[Any]:
    """The format that ``config.name`` names. Raises InputError for an unknown name."""
    return FORMATS.get(config.name).factory(config)
