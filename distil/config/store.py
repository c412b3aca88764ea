"""Puts every config dataclass into Hydra's ConfigStore under ``schema/``, where a YAML names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distil.config.command_line import plugin_paths, value_of
from distil.config.explain import explain, no_option, unknown_key, unknown_option, unparsable
from distil.config.names import refuse_renamed
from distil.config.saved import REGISTRIES
from distil.config.schema import (
    CompareConfig,
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    TrackerConfig,
)
from distil.config.trainer import TrainerConfig
from distil.config.validate import validate
from distil.registry import load_plugins
from distil.types import InputError

ROOT = "experiment"

SINGLE: dict[str, type[Any]] = {
    ROOT: ExperimentConfig,
    "model": ModelConfig,
    "rollouts": RolloutConfig,
    "trainer": TrainerConfig,
    "run": RunConfig,
    "eval": EvalConfig,
    "tracker": TrackerConfig,
    "compare": CompareConfig,
}
"""The root, and the groups whose options share one dataclass."""


def schemas() -> dict[str, type[Any]]:
    """Every dataclass by its name below ``schema/``: ``method/kd``, ``trainer``, …"""
    found = dict(SINGLE)
    for group, registry in REGISTRIES.items():
        for name, entry in registry.entries().items():
            if entry.config is not None:
                found[f"{group}/{name}"] = entry.config
    return found


def register_schemas(plugins: Iterable[str] = ()) -> None:
    """Import ``plugins``, then file the schemas in the ConfigStore. To be called before Hydra composes."""
    load_plugins(plugins)
    store = ConfigStore.instance()
    for path, config in schemas().items():
        group, _, name = path.rpartition("/")
        if group or name == ROOT:  # the other groups are typed by the root: their YAML needs no schema
            store.store(group=f"schema/{group}".rstrip("/"), name=name, node=config, provider="distil")


@contextmanager
def explained(arguments: Sequence[str]) -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise inside into one InputError about ``arguments``."""
    try:
        yield
    except MissingConfigException as error:
        message = unknown_option(error.missing_cfg_file or "", error.options or (), str(error), schemas())
        raise InputError(message) from error
    except OverrideParseException as error:
        raise InputError(unparsable(error.override, error.message)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain(f"{error}\n{error.__cause__ or ''}", arguments, schemas())) from error
    except OSError as error:
        if error.filename is None:  # of what Hydra prints: its reader has gone, the disk is full
            raise
        # The name of an option is that of a file.
        raise InputError(f"The command line names an option that is none: {error.strerror}.") from error
    except (ValueError, ArithmeticError, RecursionError) as error:  # numbers and nesting without end
        if "Config group override must be a string" in str(error):
            raise InputError(no_option(arguments, schemas())) from error
        raise InputError(f"The command line holds a value that cannot be read: {error}.") from error


def typed(config: DictConfig, arguments: Sequence[str]) -> ExperimentConfig:
    """The composed config as dataclasses, each group its own. InputError for missing and unknown keys."""
    _refuse_unknown(config, "", arguments)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise InputError(f"{missing[0]} must be given: {missing[0]}=VALUE.")
    with explained(arguments):
        experiment = OmegaConf.to_object(config)
    assert isinstance(experiment, ExperimentConfig)
    return experiment


def prepared(config: DictConfig, arguments: Sequence[str]) -> ExperimentConfig:
    """The composed config as dataclasses, its plugins loaded, all of it checked that needs no file."""
    experiment = typed(config, arguments)
    # Those of the environment and of config files too: a run's identity covers them.
    experiment.run.plugins = list(dict.fromkeys([*plugin_paths(arguments), *experiment.run.plugins]))
    load_plugins(experiment.run.plugins)
    refuse_renamed(experiment)
    validate(experiment)
    return experiment


def _refuse_unknown(node: DictConfig, path: str, arguments: Sequence[str]) -> None:
    """``+key=value`` adds a key to Hydra's config that no dataclass has: it would silently do nothing."""
    owner = OmegaConf.get_type(node)
    if owner is None or not is_dataclass(owner):
        return
    known = {field.name for field in fields(owner)}
    for key in map(str, node):
        full = f"{path}.{key}".lstrip(".")
        if key not in known:
            raise InputError(unknown_key(full, value_of(full, arguments), owner.__name__, schemas()))
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):
            _refuse_unknown(node[key], full, arguments)
