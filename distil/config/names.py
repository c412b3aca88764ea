"""Names that are labels: refused where they say something else than what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from distil.config.command_line import IMPLIED, value_of
from distil.config.help import conf_folder
from distil.config.saved import REGISTRIES
from distil.config.schema import ExperimentConfig
from distil.types import InputError

OWN = IMPLIED["model"][0]
"""Option of models of one's own."""


def refuse_labels(choices: Mapping[str, str], models: Any, arguments: Sequence[str]) -> None:
    """Raise InputError where ``arguments`` call a model or a tracker by the name of something else.

    Args:
        choices: the option of each group, as Hydra chose it.
        models: the group ``model`` as it was composed: ``model.name`` is a label for models of one's own.
        arguments: key=value, of the command line.
    """
    label, tracker = (_typed(f"{group}.name", arguments) for group in ("model", "tracker"))
    if tracker not in (None, choices["tracker"]):
        raise InputError(
            f"tracker.name={tracker} chooses no tracker. Write tracker=NAME; name= names the run."
        )
    chosen = choices["model"]
    ours = {file.stem: file for file in (conf_folder() / "model").glob("*.yaml")}
    if label in (None, chosen) or chosen == OWN or chosen not in ours:
        return
    option = yaml.safe_load(ours[chosen].read_text(encoding="utf-8"))
    varied = any(models[who].path != option[who]["path"] for who in ("teacher", "student"))
    varied = varied or any(word.startswith("model.") and "model.name=" not in word for word in arguments)
    if label in ours or not varied:
        raise InputError(
            f"model.name={label} changes a name, and the models stay those of model={chosen}. Write "
            "model=NAME for one of the options (--help lists them), or model.teacher.path= and "
            "model.student.path= for your own."
        )


def _typed(key: str, arguments: Sequence[str]) -> str | None:
    value = value_of(key, arguments)
    return None if value is None else value.strip("'\"")


def refuse_renamed(experiment: ExperimentConfig) -> None:
    """Raise InputError where a group has the name of another option: ``method.name=gkd`` leaves the keys."""
    for group, registry in REGISTRIES.items():
        options = getattr(experiment, group)
        if group == "data" and options.name not in registry.entries():
            raise InputError(
                f"data.name={options.name} is no source of rows. A subset of a set of the hub is "
                f"data.subset={options.name}."
            )
        kind = registry.get(options.name).config
        if kind is not None and kind is not type(options):
            raise InputError(
                f"{group}.name={options.name} changes a name and leaves the keys of {type(options).name} in "
                f"place. Write {group}={options.name}."
            )
