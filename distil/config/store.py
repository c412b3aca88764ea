"""Puts every config dataclass into Hydra's ConfigStore under ``schema/``, where a YAML names it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hydra.core.config_store import ConfigStore

from distil.adapters.base import ADAPTERS
from distil.config.schema import (
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    TrackerConfig,
)
from distil.config.trainer import TrainerConfig
from distil.data.base import DATA
from distil.methods.base import METHODS
from distil.registry import Registry, load_plugins

REGISTRIES: dict[str, Registry[Any]] = {"method": METHODS, "data": DATA, "peft": ADAPTERS}
"""Groups whose options each have a dataclass of their own."""

SINGLE: dict[str, type[Any]] = {
    "experiment": ExperimentConfig,
    "model": ModelConfig,
    "rollouts": RolloutConfig,
    "trainer": TrainerConfig,
    "run": RunConfig,
    "eval": EvalConfig,
    "tracker": TrackerConfig,
}
"""Groups whose options share one dataclass, and the root."""


def schemas() -> dict[str, type[Any]]:
    """Every dataclass by its name below ``schema/``: ``method/kd``, ``trainer``, …"""
    found = dict(SINGLE)
    for group, registry in REGISTRIES.items():
        for name, entry in registry.entries().items():
            if entry.config is not None:
                found[f"{group}/{name}"] = entry.config
    return found


def register_schemas(plugins: Iterable[str] = ()) -> None:
    """Import ``plugins``, then file every schema in the ConfigStore. To be called before Hydra composes."""
    load_plugins(plugins)
    store = ConfigStore.instance()
    for path, config in schemas().items():
        group, _, name = path.rpartition("/")
        store.store(group=f"schema/{group}".rstrip("/"), name=name, node=config, provider="distil")
