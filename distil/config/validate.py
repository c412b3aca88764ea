"""Checks that need several parts of the config, or a registry, and neither data nor models."""

from __future__ import annotations

from distil.adapters.base import ADAPTERS
from distil.config.checks import check
from distil.config.schema import ExperimentConfig
from distil.data.base import DATA
from distil.methods.base import METHODS
from distil.metrics.base import METRICS


def validate(config: ExperimentConfig) -> None:
    """Raise InputError for a config that cannot run whatever its files hold. Imports nothing heavy."""
    method = METHODS.get(config.method.name)
    DATA.get(config.data.name)
    ADAPTERS.get(config.peft.name)
    for metric in config.eval.metrics:
        METRICS.get(metric)
    teacher, student = config.model.teacher.path, config.model.student.path
    if method.factory(config.method).needs_teacher:
        check(
            teacher is not None,
            f"model.teacher.path=null, and method={config.method.name} learns from a teacher. Give "
            "model.teacher.path=FOLDER_OR_HUB_NAME, or a method that needs none: method=sft.",
        )
    check(
        teacher is not None or student is not None,
        "model.student.path=null and model.teacher.path=null: give at least one, a folder or a hub name, "
        "or choose a pair: model=embedded, gpt2, qwen, smollm2.",
    )
