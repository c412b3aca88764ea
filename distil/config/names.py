"""Names that are labels: refused where they say something else than what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from distil.config.command_line import NO_PATH, split_override, value_of
from distil.config.help import conf_folder
from distil.config.saved import REGISTRIES
from distil.config.schema import ExperimentConfig, ModelConfig
from distil.types import InputError


def refuse_misleading_names(experiment: ExperimentConfig, arguments: Sequence[str]) -> None:
    """Raise InputError where ``arguments`` or a config file give a group a ``name`` that is not its own."""
    _refuse_label_of_models(experiment.model, arguments)
    tracker = value_of("tracker.name", arguments)
    if tracker not in (None, value_of("tracker", arguments) or "none"):
        raise InputError(
            f"tracker.name={tracker} chooses no tracker. Write tracker=NAME; name= names the run."
        )
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


def _refuse_label_of_models(models: ModelConfig, arguments: Sequence[str]) -> None:
    """``model.name=`` labels models of one's own; where those of an option run, the name is theirs."""
    label = value_of("model.name", arguments)
    if label is None:
        return
    options = _paths_of_options()
    run = {models.teacher.path, models.student.path} - {None, "self"}
    same = [name for name, paths in options.items() if run <= paths]
    typed = [pair for pair in map(split_override, arguments) if pair and pair[0].startswith("model.")]
    varied = any(key != "model.name" and value not in NO_PATH for key, value in typed)
    if run and same and label not in same and (label in options or not varied):
        raise InputError(
            f"model.name={label} changes a name, and the models stay those of model={same[0]}. Write "
            "model=NAME for one of the options (--help lists them), or model.teacher.path= and "
            "model.student.path= for your own."
        )


def _paths_of_options() -> Mapping[str, set[str]]:
    """Of each option of ``model`` that ships with the runner, where its models are."""
    files = sorted((conf_folder() / "model").glob("*.yaml"))
    options = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    return {
        name: {path for who in ("teacher", "student") if (path := option.get(who, {}).get("path"))}
        for name, option in options.items()
    }
