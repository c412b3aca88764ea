"""What to type to see what trackers left in run directories, by what lies there alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

WHY = "offline-why.txt"
"""Beside the log of a run that is offline though there was a key, and nobody asked; W&B leaves it alone."""


def how_to_see(runs: Iterable[Path], parent: Path | None = None) -> list[str]:
    """A text for each tracker that has something in ``runs`` which is not yet shown anywhere; its last line
    is the command.

    ``parent``: the folder whose children the runs are, where one command is to serve them all.
    """
    runs = list(runs)
    told = []
    unsynced = [log for run in runs for log in offline_logs(run) if not _is_synced(log)]
    if unsynced:
        count = f"{len(unsynced)} run{'s' if len(unsynced) > 1 else ''}"
        where = " ".join(_shown(log.parent) for log in unsynced)
        if parent is not None:
            where = f"{_shown(parent)}/*/wandb/offline-run-*"
        # On a line of its own: it is copied.
        told.append(f"W&B: {count} recorded offline{_why(unsynced)} this uploads:\n  wandb sync {where}")
    if shown := [run / "tensorboard" for run in runs if (run / "tensorboard").is_dir()]:
        told.append(
            f"TensorBoard shows what was recorded:\n  tensorboard --logdir {_shown(parent or shown[0])}"
        )
    return told


def note_why(folder: Path, why: str) -> None:
    """Keep in the folder of an offline record why it is one, though there was a key."""
    with suppress(OSError):  # a full disk: the record goes on without it
        (folder / WHY).write_text(why, encoding="utf-8")


def _why(logs: Iterable[Path]) -> str:
    """Why runs were recorded offline, and what it takes to upload them."""
    try:
        reasons = dict.fromkeys(log.with_name(WHY).read_text(encoding="utf-8") for log in logs)
    except (OSError, UnicodeDecodeError):
        return ". With WANDB_API_KEY set,"
    return f": {'; '.join(reasons)}.\nWith a network,"


def offline_logs(run: Path) -> list[Path]:
    """The W&B logs of a run directory that were recorded offline."""
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"))


def _is_synced(log: Path) -> bool:
    return log.with_name(f"{log.name}.synced").exists()


def _shown(path: Path) -> str:
    """``path`` for a shell, relative to where the reader is if that is shorter."""
    try:
        return shlex.quote(str(path.absolute().relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(path))
