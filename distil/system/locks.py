"""One process at a time in a folder. The lock lies beside the folder, and the end of its holder frees it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distil.types import InputError

logger = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at whether a folder is free."""
MOMENT = 0.02
"""Seconds: more than ``in_use_by`` takes for its look, which must not keep anybody out."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that have none: Lustre without ``-o flock``, some NFS."""

_mine: set[int] = set()


def _forget() -> None:
    """A forked child holds what its parent holds for as long as it lives: it lets go at once."""
    for descriptor in _mine:
        with suppress(OSError):
            os.close(descriptor)
    _mine.clear()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def alone(folder: Path, say: Callable[[str], None] | None) -> Iterator[None]:
    """While inside, no other process that asks for ``folder`` gets it; the folder need not be there.

    Args:
        folder: a run's or a sweep's. Its parent is made, and removed again if nothing came to lie there.
        say: where another process has it, takes one line of who, and then it is waited for. None: refuse.

    Raises InputError where it is refused, OSError where the folder's parent cannot be written to.
    """
    path = _lock_of(folder)
    made = [parent for parent in path.parents if not parent.exists()]
    descriptor = _taken(path)
    if descriptor is None:
        time.sleep(MOMENT)
    while descriptor is None and (descriptor := _taken(path)) is None:
        who = f"{folder} is in use by {_holder(path)}"
        if say is None:
            raise InputError(f"{who}. Wait for it to end, or give another name=.")
        say(f"{who}: waiting for it to end.")
        say = _nothing
        time.sleep(LOOK)
    try:
        yield
    finally:
        with suppress(OSError):  # a failing disk; letting go is what frees it
            path.unlink(missing_ok=True)
        release(descriptor)
        with suppress(OSError):  # not empty: of who came to it, too
            for parent in made:
                parent.rmdir()


def in_use_by(folder: Path) -> str | None:
    """Who has ``folder`` at this moment, or None. Takes nothing and writes nothing.

    Raises OSError where the file system has no locks, or does not let this one be read.
    """
    path = _lock_of(folder.resolve())
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(path)
    finally:
        os.close(descriptor)
    return None


def take(path: Path) -> int | None:
    """A lock on the file ``path`` for ``release``; None where another process has it. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # its owner removed it in between: that one is no lock any more
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _mine.add(descriptor)
    return descriptor


def release(descriptor: int) -> None:
    """Let go of what ``take`` gave."""
    if descriptor in _mine:  # else it was let go in a fork, or there was none
        _mine.remove(descriptor)
        os.close(descriptor)


def remove_free(path: Path) -> None:
    """Remove the lock ``path`` where no process has it."""
    descriptor = take(path)
    if descriptor is not None:
        path.unlink(missing_ok=True)
        release(descriptor)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _taken(path: Path, tries: int = 9) -> int | None:
    """``take``, or -1 where the file system has no locks: a run must not fail for that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return take(path)
    except FileNotFoundError:
        if tries == 0:
            raise
        return _taken(path, tries - 1)  # who had made the folder found no use for it, and removed it
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        logger.warning("%s has no locks (%s): start nothing twice at the same time.", path.parent, error)
        return -1


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8") or "another process"
    return "another process"


def _nothing(_: str) -> None:
    """Said once."""
