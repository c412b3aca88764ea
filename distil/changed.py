"""Which settings tell two runs apart: for a checkpoint of another run, and for a run begun beside one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distil.effect import with_effect
from distil.engine.checkpoints import published
from distil.run_files import CHECKPOINTS, CONFIG, ENVIRONMENT, STATUS, status_of
from distil.system.files import read_json
from distil.system.locks import in_use_by
from distil.types import InputError

SHOWN = 4
"""Settings named in a message."""


def settings(folder: Path) -> dict[str, Any]:
    """What the run in ``folder`` computes, by dotted key: its config, the files behind it, the code.

    Raises OSError or ValueError where the folder's files cannot be read.
    """
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    known = read_json(folder / ENVIRONMENT)
    if not isinstance(config, dict) or not isinstance(known, dict):
        raise ValueError(f"{folder} holds no run")
    files = {f"contents of {key}": value for key, value in known.get("fingerprints", {}).items()}
    rest = {"code": known.get("code"), "processes": known.get("processes", 1)}
    return with_effect(config, known.get("ignored", ())) | files | rest


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The settings that differ, a phrase each."""
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    told = [f"{key} ({_short(there.get(key))} there, {_short(here.get(key))} here)" for key in keys[:SHOWN]]
    return [*told, *([f"{len(keys) - SHOWN} more"] if len(keys) > SHOWN else [])]


class SameRun:
    """What a checkpoint says of its run. One of another run is refused, by what differs.

    Checkpoints are found in the folder that carries the run's identity, so that this meets those that
    somebody put there, and folders that somebody renamed.
    """

    def __init__(self, folder: Path) -> None:
        self.identity = str(read_json(folder / STATUS)["identity"])
        self.settings = settings(folder)

    def state_dict(self) -> dict[str, Any]:
        """Identity and settings."""
        return {"identity": self.identity, "settings": self.settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raise InputError where ``state`` is another run's."""
        if state["identity"] != self.identity:
            told = ", ".join(differences(state["settings"], self.settings)) or "its name alone"
            raise InputError(
                f"run.resume=true: the checkpoint is of another run, {state['identity']}, which differs in "
                f"{told}. run.resume=false starts afresh; with its values a command finds its own folder."
            )


def unfinished_beside(folder: Path) -> str | None:
    """A line on the run that would be gone on from, were it not for a changed setting; None without one.

    It is one of the same name, method, model, adapter and seed as that of ``folder``, and has a checkpoint.
    """
    label = folder.name.rpartition("-")[0]
    try:
        others = [
            other
            for other in folder.parent.glob(f"{label}-*")
            if other != folder and other.name.rpartition("-")[0] == label
        ]
        begun = [other for other in others if status_of(other) != "done" and published(other / CHECKPOINTS)]
        if not begun:
            return None
        newest = max(begun, key=lambda other: (other / STATUS).stat().st_mtime)
        told = ", ".join(differences(settings(newest), settings(folder)))
        holder = in_use_by(newest)
    except Exception:  # a hint: whatever is wrong with a folder beside it must not cost this run
        return None
    state = "is unfinished" if holder is None else f"is running ({holder})"
    return f"It does not go on from {newest}, which {state} and differs in {told}."


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
