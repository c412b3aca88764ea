"""Where scalars, samples and results go besides the run directory: Weights & Biases, TensorBoard, nowhere.

Nothing is sent or written with a secret in it, and a tracker is finished however its run ends.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.registry import unknown_name
from distil.system.extras import install
from distil.tracking.background import Background
from distil.tracking.base import NoTracker, Tracker
from distil.tracking.ending import how_to_see
from distil.tracking.event_files import TensorBoardTracker
from distil.tracking.wandb_run import WandbTracker
from distil.types import InputError

if TYPE_CHECKING:
    from distil.config.schema import TrackerConfig

__all__ = ["TRACKERS", "NoTracker", "Tracker", "check_tracker", "how_to_see", "start_tracker"]

TRACKERS = ("none", "tensorboard", "wandb")


def check_tracker(config: TrackerConfig, allow_network: bool = True) -> None:
    """Raise InputError for an unknown tracker, one whose package is missing, or one that is told to go online
    where ``allow_network`` is false. Cheap: imports nothing."""
    if config.name not in TRACKERS:
        raise InputError(unknown_name("tracker", config.name, TRACKERS))
    if config.name != "none" and find_spec(config.name) is None:
        raise InputError(
            f"tracker={config.name} needs the package {config.name}: {install(config.name)}, or tracker=none."
        )
    asked = os.environ.get("WANDB_MODE")
    if config.name == "wandb" and not allow_network and asked in ("online", "shared"):
        raise InputError(
            f"tracker=wandb with WANDB_MODE={asked} and run.allow_network=false: one of them must give way. "
            "Unset WANDB_MODE to record offline (wandb sync uploads it later), or allow the network."
        )


def start_tracker(
    config: TrackerConfig, run_dir: Path, run_config: Mapping[str, Any], run_name: str, identity: str
) -> Tracker:
    """The tracker that ``config`` names, started.

    Args:
        config: which tracker, and its project, entity, group, tags.
        run_dir: where its files go. What an earlier session of this run left there is begun anew.
        run_config: the resolved config; secrets are hidden before it leaves this function.
        run_name: what a person reads.
        identity: what makes the same run the same; a rerun needs one of its own (``<identity>-r2``).

    Raises InputError as ``check_tracker`` does.
    """
    check_tracker(config)
    if config.name == "wandb":
        tracker = WandbTracker(config, run_dir, run_config, run_name, identity)
        later = f"wandb sync {shlex.quote(str(tracker.folder))} uploads what was recorded."
        return Background(tracker, tracker.answers, tracker.abandon, later)
    if config.name == "tensorboard":
        shown = f"tensorboard --logdir {shlex.quote(str(run_dir / 'tensorboard'))} shows what was recorded."
        return Background(TensorBoardTracker(run_dir, run_config), lambda: True, lambda: None, shown)
    return NoTracker()
