"""Checkpoints of the library's trainings: which one to go on from, and room for a new training's own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distil.api.calls import check_path
from distil.api.errors import ArgumentError, require
from distil.engine import checkpoints
from distil.engine.saving import OWN_STATE, TRAINED
from distil.system.files import read_json

logger = logging.getLogger(__name__)

TRAINER_STATE = "trainer_state.json"
"""Of transformers, in each checkpoint."""


def checkpoint_of(
    root: Path, resume: str | Path | bool | None, purpose: Mapping[str, Any], *, adapted: bool
) -> Path | None:
    """The checkpoint to go on from; None for a fresh training.

    Args:
        root: where checkpoints are.
        resume: a checkpoint folder, True for the newest whole one of ``root``, or nothing.
        purpose: what this training is for: its method's name and settings, those of the trainer, its rows.
        adapted: whether it trains an adapter alone.

    Raises ArgumentError where there is none, or it is of another method, or of a student made otherwise.
    """
    if resume is None or resume is False:
        return None
    if resume is True:
        newest, problems = checkpoints.newest_valid(root)
        for problem in problems:
            logger.warning(problem)
        if newest is None:
            raise ArgumentError(
                f"resume_from_checkpoint=True: {root} holds no whole checkpoint. One is written every "
                "save_steps steps (the config's, or of training_args): set fewer to lose less. Without "
                "resume_from_checkpoint the training begins anew."
            )
        _check_purpose(newest, purpose, adapted)
        return newest
    folder = check_path("resume_from_checkpoint", resume)
    problems = checkpoints.verify(folder) if folder.is_dir() else ["there is no such folder"]
    require(not problems, f"resume_from_checkpoint={folder}: {'; '.join(problems)}.")
    _check_purpose(folder, purpose, adapted)
    return folder


def rows_print(rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells these rows, in this order, from others."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["input_ids"], row["labels"]]).encode())
    return f"{len(rows)} rows ({digest.hexdigest()[:8]})"


def warn_of_nothing_left(checkpoint: Path, step: int) -> None:
    """Say so where a training that went on from ``checkpoint`` made no step: it ended at ``step``."""
    try:
        began = int(read_json(checkpoint / TRAINER_STATE)["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if began >= step:
        logger.warning(
            "%s is of step %d, the last of this training: nothing was trained. More epochs go on from there; "
            "resume_from_checkpoint=None begins anew.",
            checkpoint,
            began,
        )


def _check_purpose(folder: Path, purpose: Mapping[str, Any], adapted: bool) -> None:
    """Refuse another method's checkpoint; say what else is no longer as it was."""
    then = read_json(folder / OWN_STATE).get("purpose") or purpose
    require(
        then["name"] == purpose["name"],
        f"resume_from_checkpoint: {folder} is of a training with method={then['name']}, this is one with "
        f"method={purpose['name']}. Give one of {purpose['name']}, or resume_from_checkpoint=None to "
        "train afresh; each method wants an output_dir of its own.",
    )
    of_adapter = (folder / TRAINED).is_file()
    what = {True: "an adapter", False: "a whole student"}
    require(
        of_adapter == adapted,
        f"resume_from_checkpoint: {folder} is of {what[of_adapter]}, here {what[adapted]} is trained. "
        f"Give use_peft={of_adapter} as it was, or resume_from_checkpoint=None to train afresh.",
    )
    changed = [
        f"{name}={then[name]!r} then, {value!r} now"
        for name, value in purpose.items()
        if name in then and then[name] != value
    ]
    if changed:
        logger.warning("%s was trained otherwise: %s.", folder, "; ".join(changed))


def make_room(root: Path, resumed: Path | None) -> None:
    """An earlier training's checkpoints must not be taken for this one's: they are set aside.

    Args:
        root: where this training's checkpoints will be.
        resumed: the checkpoint that it goes on from. Those up to it are its own; all are another training's
            where it lies elsewhere.
    """
    earlier = checkpoints.published(root)
    places = [folder.resolve() for folder in earlier]
    if resumed is not None and resumed.resolve() in places:
        earlier = earlier[places.index(resumed.resolve()) + 1 :]
    if not earlier:
        return
    finished = _finished(earlier[-1])
    aside = _set_aside(root, earlier, "finished" if finished else "unfinished")
    logger.warning(
        "Checkpoints of an earlier training in %s, which %s to its end, are now in %s. "
        "resume_from_checkpoint=%r goes on from there.",
        root,
        "came" if finished else "did not come",
        aside,
        str(aside / earlier[-1].name),
    )


def _set_aside(root: Path, folders: list[Path], kind: str) -> Path:
    """Where they are now."""
    number = 1
    while (aside := root / f"{kind}-{number}").exists():
        number += 1
    aside.mkdir(parents=True)
    for folder in folders:
        folder.rename(aside / folder.name)
    return aside


def _finished(folder: Path) -> bool:
    """Whether this was the last checkpoint of its training."""
    try:
        state = read_json(folder / TRAINER_STATE)
        return bool(state["global_step"] >= state["max_steps"])
    except (OSError, ValueError, KeyError):
        return False
