"""What several processes may want at once, and one of them makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from distil.locks import alone
from distil.types import InputError

T = TypeVar("T")


def once(folder: Path, there: Callable[[], T | None], make: Callable[[], T], say: Callable[[str], None]) -> T:
    """What ``there`` finds in ``folder``, or what ``make`` puts there; whoever comes second waits.

    Args:
        say: takes a line of whom is waited for.

    Raises InputError where the folder cannot be written to.
    """
    if (found := there()) is not None:
        return found
    try:
        with alone(folder, say):
            if (found := there()) is not None:  # made by whoever was waited for
                return found
            folder.mkdir(parents=True, exist_ok=True)
            return make()
    except OSError as error:
        raise InputError(
            f"teacher_cache.folder={folder.parent}: {error}. Give another teacher_cache.folder=."
        ) from error
