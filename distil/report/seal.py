"""What a run noted of its scores, samples and student when it was done, held against what is there now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distil.engine.checkpoints import MANIFEST, changes

SMALL = 4 * 2**20
"""Bytes: files up to here are hashed wherever a run is read, of larger ones the size is looked at."""
USED = 2**30
"""Bytes, likewise where a student is about to be loaded. ``distil doctor`` hashes all."""

SINCE = " since the run was done"


def since_done(folder: Path, largest: int = SMALL) -> tuple[str, ...]:
    """A line for each file of the run in ``folder`` that is missing, cut or changed since the run was done.

    Nothing is known, and nothing said, where the run has no manifest: it was not done yet.
    """
    if not (folder / MANIFEST).exists():
        return ()
    return tuple(f"{problem}{SINCE}" for problem in changes(folder, largest=largest))


def in_few_lines(damaged: Sequence[str]) -> list[str]:
    """``damaged`` with one line for all files of a student that was removed: disk is often saved that way."""
    ending = f" is missing{SINCE}"
    gone = [line for line in damaged if line.startswith("student/") and line.endswith(ending)]
    if len(gone) < 2:
        return list(damaged)
    return [
        *(line for line in damaged if line not in gone),
        f"student/: {len(gone)} files are missing{SINCE}",
    ]
