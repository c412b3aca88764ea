"""What several processes may want at once, and one of them makes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from distil.system.files import unwritable
from distil.system.locks import alone

T = TypeVar("T")


def once(
    folder: Path,
    there: Callable[[], T | None],
    make: Callable[[], T],
    say: Callable[[str], None],
    key: str = "teacher_cache.folder",
) -> T:
    """What ``there`` finds in ``folder``, or what ``make`` puts there; whoever comes second waits.

    Args:
        say: takes a line of whom is waited for.
        key: of the config, that says where ``folder`` lies.

    Raises InputError where the folder cannot be written to.
    """
    if (found := there()) is not None:
        return found
    with ExitStack() as held:
        try:
            held.enter_context(alone(folder, say))
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(key, folder.parent, error) from error
        found = there()  # made by whoever was waited for
        return make() if found is None else found
