"""What is settled before anything expensive loads: whether a run can work, which run it is, where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from distil import identity
from distil.adapters.base import adapter_of
from distil.adapters.existing import KEY, WEIGHTS, check_folder, check_stored
from distil.config.command_line import split_override
from distil.config.schema import DataConfig, ExperimentConfig, MethodConfig
from distil.config.validate import check_packages
from distil.data.base import check_data
from distil.methods.base import Method, method_of
from distil.models import check_models, check_quantized
from distil.models.sources import student_source, teacher_source
from distil.processes import ranks
from distil.system import environment
from distil.system.files import check_writable, expanded
from distil.tracking import check_tracker
from distil.types import REFERENCE, ROLLOUT, InputError

CACHE_ITSELF = ("teacher_cache", "teacher_cache.folder")
"""Keys that count whoever asks the teacher: where answers are kept, if they are."""


def locate(config: ExperimentConfig) -> tuple[str, Path]:
    """The identity of the run of ``config`` and its folder. Raises InputError for what cannot run."""
    preflight(config)
    name = identify(config, method_of(config.method))
    return name, identity.run_folder(config, name)


def preflight(config: ExperimentConfig) -> None:
    """Refuse what cannot work, with the standard library alone: no model, no torch."""
    check_packages(config)
    check_tracker(config.tracker, config.run.allow_network)
    check_data(config.data, config.run.allow_network)
    adapter = adapter_of(config.peft)
    if config.run.packing and adapter.virtual_tokens:
        raise InputError(
            f"run.packing=true: peft={config.peft.name} learns a prompt before each row, and packed rows "
            "share a line. Take run.packing=false, or another peft=."
        )
    check_models(config.model, allow_network=config.run.allow_network)
    check_quantized(
        config.model, f"peft={config.peft.name}", adapter.adapts, adapter.quantization is not None
    )
    if config.model.student.adapter is not None:
        check_stored(expanded("model.student.adapter", config.model.student.adapter), adapter.shape())
    check_writable(config.output_dir)


def identify(config: ExperimentConfig, method: Method[MethodConfig]) -> str:
    """The identity of this run: its config without what has no effect, its files' contents, the code."""
    known = fingerprints(config)
    if ranks.world_size() > 1:  # they multiply the batch
        known |= {"processes": str(ranks.world_size())}
    return identity.run_identity(
        asdict(config), known, environment.code_version(), ignored_keys(config, method)
    )


def ignored_keys(config: ExperimentConfig, method: Method[MethodConfig]) -> list[str]:
    """Dotted keys that this run does not use."""
    ignored = [f"method.{key}" for key in config.method.ignored]
    ignored += _overruled(config)
    if not method.wants_rollouts:
        ignored.append("rollouts")
    if not method.asks_teacher_about(REFERENCE):
        ignored.append("teacher_cache")
    return ignored


def unused(config: ExperimentConfig, arguments: Sequence[str]) -> list[str]:
    """A line on each override of ``arguments`` that this run does not use: it changes nothing."""
    usual = f"this run does not use it (method={config.method.name})"
    told = _unused(config, arguments)
    for key, value in dict(filter(None, map(split_override, arguments))).items():
        if key.startswith("compare."):
            told[f"{key}={value}"] = "it is read at the end of a sweep (-m)"
    return [f"{word} changes nothing: {why or usual}." for word, why in told.items()]


def unused_by_all(jobs: Sequence[tuple[Sequence[str], ExperimentConfig]]) -> list[str]:
    """A line on each override that no job of a sweep uses among those that have it.

    Args:
        jobs: overrides of each job, with its config.
    """
    told: dict[str, str | None] = {}
    used: set[str] = set()
    for overrides, config in jobs:
        idle = _unused(config, overrides)
        told |= idle
        used |= {
            f"{key}={value}" for key, value in filter(None, map(split_override, overrides))
        } - idle.keys()
    usual = "no job that has it uses it"
    return [f"{word} changes nothing: {why or usual}." for word, why in told.items() if word not in used]


def _unused(config: ExperimentConfig, arguments: Sequence[str]) -> dict[str, str | None]:
    """The overrides among ``arguments`` that this run does not use, and what overrules each, if anything."""
    method = method_of(config.method)
    ignored = ignored_keys(config, method)
    why = _overruled(config)
    used = CACHE_ITSELF if _evaluates_from_cache(config, method) else ()
    return {
        f"{key}={value}": why.get(key)
        for key, value in dict(filter(None, map(split_override, arguments))).items()
        if value != "none"
        and key not in used
        and any(key == each or key.startswith(f"{each}.") for each in ignored)
    }


def _evaluates_from_cache(config: ExperimentConfig, method: Method[MethodConfig]) -> bool:
    """Whether a cache, of any format, keeps what the teacher says of held-out rows: no part of the run, since
    the scores are the same, but of use."""
    return config.eval.teacher and not (
        config.model.teacher.path is None or method.asks_teacher_about(ROLLOUT)
    )


def _overruled(config: ExperimentConfig) -> dict[str, str]:
    """Dotted keys that another key overrules, and which."""
    groups = {
        "trainer": config.trainer.ignored,
        "eval": config.eval.ignored,
        "tracker": config.tracker.ignored,
    }
    return {f"{group}.{key}": why for group, keys in groups.items() for key, why in keys.items()}


def fingerprints(config: ExperimentConfig) -> dict[str, str]:
    """Contents of the files and folders that config values name, by dotted key.

    What comes of a hub counts by its name and revision, in the config: its commit is known only once it has
    come, and the run that brings it must be the same run as the next.
    """
    sources = (teacher_source(config.model), student_source(config.model))
    paths = {
        source.key: source.folder for source in sources if source is not None and source.folder is not None
    }
    prints = {key: identity.fingerprint_path(path) for key, path in paths.items()}
    adapter = config.model.student.adapter
    if adapter is not None:
        saved = Path(adapter).expanduser()
        # Not its model card, which holds a command: what weights are and how they are put on, no more.
        prints[KEY] = identity.fingerprint_path(saved / WEIGHTS)
        prints[f"{KEY}.config"] = identity.fingerprint_settings(check_folder(saved))
    return prints | data_fingerprints(config.data) | _plugins(config)


def data_fingerprints(data: DataConfig) -> dict[str, str]:
    """Contents of the files and folders that ``data`` names, by dotted key."""
    return {
        f"data.{key}": identity.fingerprint_path(Path(value).expanduser())
        for key, value in asdict(data).items()
        if isinstance(value, str)
        and (key == "path" or key.endswith("_file"))
        and Path(value).expanduser().exists()
    }


def _plugins(config: ExperimentConfig) -> dict[str, str]:
    """Contents of ``run.plugins``; two of one name are one entry, in no order."""
    prints: dict[str, set[str]] = {}
    for path in config.run.plugins:
        prints.setdefault(f"plugin {Path(path).name}", set()).add(identity.fingerprint_path(path))
    return {name: " ".join(sorted(contents)) for name, contents in prints.items()}
