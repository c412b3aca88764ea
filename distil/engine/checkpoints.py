"""Checkpoint folders that are complete or absent.

A checkpoint is written beside its place, every file is hashed into ``manifest.json``, everything is synced
to the disk, and one rename publishes it. A kill at any moment leaves the checkpoint whole or not there; later
damage (a flipped bit, a truncated or missing file) is found by ``verify`` before anything is loaded.
Knows files only, not what is in them.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distil.system.files import digest_of, fsync, nearest_existing, read_json, remove, write_json
from distil.system.units import human_bytes
from distil.types import InputError

MANIFEST = "manifest.json"
PARTIAL = ".partial"
DAMAGED = ".damaged"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def partial_folder(checkpoints_dir: Path, name: str) -> Path:
    """The hidden folder beside the checkpoints in which checkpoint ``name`` is written before it is there."""
    folder = checkpoints_dir / f".{name}{PARTIAL}"
    folder.mkdir(parents=True, exist_ok=True)  # every rank of a run may ask for it
    return folder


def publish(partial: Path, final: Path) -> None:
    """Turn the folder ``partial`` into the checkpoint ``final``: hash, sync, rename.

    Both must lie on one file system. Raises FileExistsError where ``final`` is already there.
    """
    if final.exists():
        raise FileExistsError(f"{final} exists already")
    (partial / MANIFEST).unlink(missing_ok=True)
    seal(partial, _files(partial))
    for folder, _, _ in os.walk(partial):
        fsync(Path(folder))
    partial.rename(final)
    fsync(final.parent)
    if partial.parent.name.endswith(PARTIAL):
        shutil.rmtree(partial.parent, ignore_errors=True)


def seal(folder: Path, files: Iterable[Path], editable: Iterable[Path] = ()) -> None:
    """Write down what ``files`` below ``folder`` hold, once they are on the disk: for ``changes``.

    ``editable``: files that people may change, for ``edits``.
    """
    listed = {"files": [_describe(file, folder) for file in files]}
    edited = [_describe(file, folder) for file in editable]
    write_json(folder / MANIFEST, listed | ({"editable": edited} if edited else {}))


def verify(folder: Path) -> list[str]:
    """What is wrong with checkpoint ``folder``, one line each: missing, extra, truncated or changed files."""
    return changes(folder, others=False)


def changes(folder: Path, *, others: bool = True, largest: int | None = None) -> list[str]:
    """What has become of the files that the manifest of ``folder`` lists, one line each where anything has.

    ``others``: whether there may be files that it does not list, and links in the place of those that it does
    (of a product that lies elsewhere by now). ``largest``: bytes up to which files are hashed (None: all of
    them); of larger ones the size alone is looked at.
    """
    try:
        expected = _listed(folder, "files")
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{MANIFEST} cannot be read ({type(error).__name__})"]
    problems = []
    if not others:
        try:
            found = [file.relative_to(folder).as_posix() for file in _files(folder)]
        except OSError as error:  # a folder that the disk does not give, or that is removed meanwhile
            return [f"its files cannot be read ({_said(error)})"]
        extra = (name for name in found if name not in expected and name != MANIFEST)
        problems = [f"{name} is not in the manifest" for name in extra]
    return problems + _changed(folder, expected, largest, linked=others)


def edits(folder: Path, product: str) -> list[str]:
    """What is not damage, a line each: editable files that were edited or removed since the manifest of
    ``folder`` was written, and files below ``product`` that came after it.

    Nothing of manifests that list no editable files: such were written before there were any.
    """
    try:
        own, editable = _listed(folder, "files"), _listed(folder, "editable")
        found = [file.relative_to(folder).as_posix() for file in _files(folder / product)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    told = [
        f"{name} was {'removed' if line[0].endswith(' is missing') else 'edited'}"
        for name, facts in editable.items()
        if (line := _changed(folder, {name: facts}, None, linked=True))
    ]
    return told + [f"{name} was added" for name in found if name not in own and name not in editable]


def _listed(folder: Path, key: str) -> dict[str, tuple[Any, Any]]:
    """Size and hash by name, as the manifest has them. Raises what a damaged one makes its reader raise."""
    listed = read_json(folder / MANIFEST)[key]
    return {str(entry["name"]): (entry["size"], entry["sha256"]) for entry in listed}


def _changed(
    folder: Path, expected: Mapping[str, tuple[Any, Any]], largest: int | None, *, linked: bool
) -> list[str]:
    """A line for each of the ``expected`` files of which anything has become."""
    problems = []
    for name, (size, digest) in expected.items():
        outside = name.startswith("/") or ".." in name.split("/")
        problem = "is missing" if outside else _problem(folder / name, size, digest, largest, linked=linked)
        problems += [] if problem is None else [f"{name} {problem}"]
    return problems


def _problem(file: Path, size: int, digest: str, largest: int | None, *, linked: bool) -> str | None:
    """What has become of one file of these bytes and this hash; ``linked``: whether it may be a link."""
    try:
        there = file.stat(follow_symlinks=linked)
        if not stat.S_ISREG(there.st_mode):
            return "is no file"
        if there.st_size != size:
            return f"has {there.st_size} bytes instead of {size}"
        hashed = largest is None or size <= largest
        return "has changed" if hashed and digest_of(file) != digest else None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # of the last: a name that no disk can hold
        return "is missing"
    except OSError as error:
        return f"cannot be read ({_said(error)})"


def _said(error: OSError) -> str:
    return error.strerror or type(error).__name__


def newest_valid(checkpoints_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies (or None), and a line for each damaged one passed over.

    Damaged checkpoints are renamed to ``….damaged``, so that training can write that step again.
    What a killed save left behind is removed.
    """
    for leftover in checkpoints_dir.glob(f".*{PARTIAL}"):
        remove(leftover)
    notes: list[str] = []
    for folder in reversed(published(checkpoints_dir)):
        problems = verify(folder)
        if not problems:
            return folder, notes
        aside = folder.with_name(folder.name + DAMAGED)
        if aside.exists() or aside.is_symlink():
            remove(aside)
        folder.rename(aside)
        notes.append(f"{folder.name} is damaged ({'; '.join(problems)}): set aside as {aside.name}")
    return None, notes


def published(checkpoints_dir: Path) -> list[Path]:
    """The folders ``checkpoint-<step>``, oldest step first, verified or not."""
    if not checkpoints_dir.is_dir():
        return []
    steps = [(_step(folder), folder) for folder in checkpoints_dir.iterdir() if folder.is_dir()]
    return [folder for step, folder in sorted((step, folder) for step, folder in steps if step is not None)]


def rotate(checkpoints_dir: Path, keep: int, best: Path | None = None) -> None:
    """Remove all but the newest ``keep`` checkpoints and ``best``. Raises ValueError for ``keep < 1``."""
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    for folder in published(checkpoints_dir)[:-keep]:
        if best is not None and folder.resolve() == best.resolve():
            continue
        # Out of sight first: a kill while removing must not leave half a checkpoint under its name.
        hidden = folder.with_name(f".{folder.name}.old{PARTIAL}")
        folder.rename(hidden)
        remove(hidden)


def space_needed(saved_bytes: int, trained_bytes: int, keep: int) -> int:
    """Bytes that a run's checkpoints and its product take at most.

    Args:
        saved_bytes: bytes of the weights that a checkpoint holds.
        trained_bytes: bytes of the weights that train; AdamW keeps two more numbers for each.
        keep: checkpoints kept; the best one and the one being written come on top.
    """
    return (saved_bytes + 2 * trained_bytes) * (keep + 2) + saved_bytes


def ensure_space(folder: Path, needed_bytes: int) -> None:
    """Raise InputError unless ``needed_bytes`` are free where ``folder`` lies (or will lie)."""
    free = shutil.disk_usage(nearest_existing(folder)).free
    if free < needed_bytes:
        raise InputError(
            f"output_dir={folder}: the checkpoints asked for take {human_bytes(needed_bytes)}, "
            f"{human_bytes(free)} are free. Free some space, choose another output_dir, or keep fewer "
            "checkpoints (trainer.save_total_limit=1)."
        )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def _describe(file: Path, root: Path) -> dict[str, str | int]:
    """The manifest's entry of one file, which is synced to the disk on the way."""
    digest = digest_of(file)
    fsync(file)
    return {"name": file.relative_to(root).as_posix(), "size": file.stat().st_size, "sha256": digest}


def _step(folder: Path) -> int | None:
    match = _CHECKPOINT.fullmatch(folder.name)
    return int(match[1]) if match else None
