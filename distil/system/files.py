"""Files that are complete or absent: write beside, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distil.types import InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What systems say of a disk that is full, or of one's share of it."""


def expanded(key: str, path: str | Path) -> Path:
    """``path``, its ``~`` written out. Raises InputError, naming ``key``, where nobody has such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{key}={path}: there is no such home folder. Give the whole path.") from error


def nearest_existing(path: Path) -> Path:
    """``path``, or the closest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def check_writable(output_dir: str) -> None:
    """Raise InputError where no folder of that name is or can be made. Makes none."""
    existing = nearest_existing(Path(output_dir))
    if refused := _refused(existing):
        raise InputError(f"output_dir={output_dir}: {refused}. Give another output_dir=.")


def check_output(folder: Path) -> None:
    """Raise InputError unless ``folder``, of ``--output`` or where that is not given, is absent or empty and
    can be made."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} is there already. Give a folder that is absent or empty: --output DIR.")
    existing = nearest_existing(folder.absolute().parent)
    if refused := _refused(existing):
        raise InputError(f"{folder}: {refused}. Give another folder: --output DIR.")


def _refused(existing: Path) -> str:
    """Why no folder can be made in ``existing``; empty where one can."""
    if not existing.is_dir():
        return f"{existing} is a file, so no folder can be made in it"
    return "" if os.access(existing, os.W_OK) else f"{existing} cannot be written to"


def unwritable(key: str, value: object, error: OSError, begun: bool = False) -> InputError:
    """The message about a folder that the config names by ``key`` and that takes no files.

    ``begun``: what lies there is to go on; in another folder it would begin anew.
    """
    full = error.errno in NO_ROOM
    if begun:
        mended = "Free some space" if full else "Mend that"
        way_out = f"{mended}: what was written before is kept, and the same command goes on."
    else:
        way_out = f"Free some space, or give another {key}=." if full else f"Give another {key}=."
    place = f": {error.filename}" if error.filename else ""
    why = f"{error.strerror}{place}" if error.strerror else str(error)
    if error.errno == errno.ENOENT:  # of what is being made, which says nothing: of /proc, say
        why = f"no folder can be made there: {why}"
    return InputError(f"{key}={value} cannot be written to ({why}). {way_out}")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically: after a crash the file holds the old text or the new, never
    half."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a killed process; or a link that somebody put there
        # Half of a surrogate pair, which JSON can spell, is written as JSON spells it.
        with open(partial, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk the next message needs the room
        raise
    fsync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, keys in insertion order, floats exact; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path, errors: str = "strict") -> str:
    """The text in ``path``. Raises OSError for what is no file: a pipe or a device, behind a link perhaps,
    has no end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_text(encoding="utf-8", errors=errors)


def read_json(path: Path) -> Any:
    """The JSON value in ``path``. Raises OSError and ValueError, nesting without end among them."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder to fill; behind the block it is ``folder`` (absent or empty), its files being on the disk.

    After an error nothing is left of it.
    """
    place = folder.absolute()
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in filter(Path.is_file, partial.rglob("*")):
            fsync(file)
        fsync(partial)
        if place.is_dir():
            place.rmdir()
        os.replace(partial, place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync(place.parent)


def remove(folder: Path) -> None:
    """Remove ``folder`` and what is in it; of a link, there or inside, the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def digest_of(file: Path) -> str:
    """SHA-256 of ``file``, in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Make the file ``path``, or the renames inside the folder ``path``, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
