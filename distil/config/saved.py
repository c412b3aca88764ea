"""The config of a run directory, as the dataclasses that it was written from. No Hydra, nothing heavy."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from distil.adapters.base import ADAPTERS
from distil.config.command_line import PLUGINS_VARIABLE
from distil.config.schema import ExperimentConfig
from distil.data.base import DATA
from distil.methods.base import METHODS
from distil.registry import Registry, load_plugins, loaded_plugins
from distil.teacher_cache.formats.base import FORMATS
from distil.types import InputError

REGISTRIES: dict[str, Registry[Any]] = {
    "method": METHODS,
    "data": DATA,
    "peft": ADAPTERS,
    "teacher_cache": FORMATS,
}
"""Groups whose options each have a dataclass of their own."""
YOUNGER = ("teacher_cache",)
"""Those that runs of earlier versions do not name."""
OTHER_KIND = (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What comes of a value of another kind than its key's."""


def saved_config(file: Path, values: Mapping[str, Any]) -> ExperimentConfig:
    """``values``, the mapping in ``file`` (a config.yaml), typed. Of its plugins none is imported but by
    the environment variable: the run may be somebody else's.

    A key that is not there has its default. Raises InputError, naming ``file``, for a plugin that is not
    loaded, a key that nobody knows and a value that does not fit.
    """
    run = values.get("run")
    plugins = run.get("plugins") if isinstance(run, Mapping) else None
    try:
        _check_loaded(plugins or [])
        return _experiment(file, values)
    except OTHER_KIND as error:
        raise InputError(f"{file} does not fit this version: {error}. Restore the run's own file.") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _check_loaded(plugins: Sequence[str]) -> None:
    """Refuse code that nobody asked for but the run: it may lie anywhere that came with it."""
    named = [path for path in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if path]
    load_plugins(named)
    absent = [path for path in plugins if not _is_loaded(Path(path))]
    if absent:
        told = f"{PLUGINS_VARIABLE}={shlex.quote(os.pathsep.join([*named, *absent]))}"
        raise InputError(
            f"run.plugins=[{','.join(absent)}] would run with all your rights, so it is loaded only where "
            f"you name it yourself (runs may be somebody else's). If you read it:\n  {told} {_command()}"
        )


def _is_loaded(path: Path) -> bool:
    """Whether all of the plugin was imported; of one that is not here any more, one of its name."""
    loaded = set(loaded_plugins().values())
    if not path.exists():
        return path.name in {name for file in loaded for name in (file.name, file.parent.name)}
    return {file.resolve() for file in (path.glob("*.py") if path.is_dir() else [path])} <= loaded


def _command() -> str:
    """The command of this process, to be typed again."""
    program, *words = sys.argv
    name = Path(program).name
    return shlex.join(["distil" if name in ("distil", "__main__.py") else name, *words])


def _experiment(file: Path, values: Mapping[str, Any]) -> ExperimentConfig:
    typed: dict[str, Any] = dict(values)
    for group, registry in REGISTRIES.items():
        if group in YOUNGER and group not in values:
            continue
        given = values.get(group)
        if not isinstance(given, Mapping) or "name" not in given:
            raise InputError(f"it names no {group}. Restore the run's own file.")
        entry = registry.get(str(given["name"]))
        if entry.config is None:
            raise InputError(f"{group}={entry.name} has no keys of its own here.")
        typed[group] = _built(entry.config, given, group)
    experiment = _built(ExperimentConfig, typed, "")
    assert isinstance(experiment, ExperimentConfig)
    return experiment


def _built(kind: type[Any], values: Mapping[str, Any], path: str) -> Any:
    """``kind`` from its keys, nested dataclasses too."""
    known = {field.name for field in fields(kind)}
    # A key that is gone and was null said nothing.
    values = {name: value for name, value in values.items() if name in known or value is not None}
    unknown = sorted(map(str, set(values) - known))
    if unknown:
        key = f"{path}.{unknown[0]}".lstrip(".")
        raise InputError(f"{key} is unknown to this version. Use the version that the run was made with.")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{path}.{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, path: str) -> Any:
    """``value`` of a key whose type is ``hint``; a mapping as the dataclass that is wanted there."""
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return _built(hint, value, path.lstrip("."))
    if not _fits(value, hint):
        shown = str(value)
        raise InputError(
            f"{path.lstrip('.')}={shown[:60]}{'…' if len(shown) > 60 else ''} does not fit this version. "
            "Restore the run's own file."
        )
    return value


def _fits(value: Any, hint: Any) -> bool:
    """Whether ``value`` is of the type ``hint``, as YAML has it: a whole number is a float, too."""
    if hint is Any:
        return True
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, kinds[0]) for item in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(item, kinds[1]) for item in value.values())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)
