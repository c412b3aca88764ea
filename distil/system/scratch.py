"""Temporary folders that a killed process does not leave behind for good: the next one removes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "distil-scratch-"
"""Of all of them, in the system's folder for such."""


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """A temporary folder, gone at the end; first those of processes that are no more are removed.

    Who holds a lock on such a folder lives; the end of a process, however it comes, frees its locks. Where
    the file system has none, nothing but one's own is removed.
    """
    _remove_left_behind()
    folder, held = _made(kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _made(kind: str) -> tuple[Path, int | None]:
    """A new folder and its lock; None where the file system has none."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-"))
        try:
            held = _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # another process took it for one left behind
            continue
        except OSError:
            return folder, None
        if folder.is_dir():
            return folder, held
        os.close(held)


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            held = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _lock(folder: Path) -> int:
    """A lock on ``folder`` itself. Raises BlockingIOError where another process has it, else OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
