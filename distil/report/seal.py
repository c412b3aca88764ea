"""What a run noted of its scores, samples and student when it was done, held against what is there now."""

from __future__ import annotations

from pathlib import Path

from distil.checkpoints import MANIFEST, changes

SMALL = 4 * 2**20
"""Bytes: files up to here are hashed wherever a run is read, of larger ones the size is looked at."""
USED = 2**30
"""Bytes, likewise where a student is about to be loaded. ``distil doctor`` hashes all."""


def since_done(folder: Path, largest: int = SMALL) -> tuple[str, ...]:
    """A line for each file of the run in ``folder`` that is missing, cut or changed since the run was done.

    Nothing is known, and nothing said, where the run has no manifest: it was not done yet.
    """
    if not (folder / MANIFEST).exists():
        return ()
    return tuple(f"{problem} since the run was done" for problem in changes(folder, largest=largest))
