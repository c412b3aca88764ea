"""A student made ready: an adapter on it where one is asked for, the teacher beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from distil.adapters.base import adapter_of
from distil.api.errors import require
from distil.api.inputs import check_trainable, quantised_bits
from distil.config.schema import ExperimentConfig
from distil.config.validate import check_packages
from distil.engine.anatomy import is_adapted
from distil.models.base_print import base_print

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def adapted(
    student: PreTrainedModel, experiment: ExperimentConfig, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, str]:
    """The model to train, in eval mode, and what tells the base under its adapter (empty: it has none).

    The adapter's start is drawn from the seed, as in a run. Raises InputError for what does not fit.
    """
    adapter, told = adapter_of(experiment.peft), ""
    require(
        not is_adapted(student) or hasattr(student, "get_base_model"),
        "student_model holds an adapter's layers without PEFT's wrapper around them: it was given to a "
        "use_peft=True before (which works on the model itself), or loaded from an adapter's folder. Saved, "
        "it would be neither. Load the plain model again; to go on from a saved adapter, use_peft=True and "
        "load_student(folder).",
    )
    if adapter.adapts:
        require(
            not is_adapted(student),
            "student_model carries an adapter already. Load the plain model again, or set use_peft=False to "
            "train the adapter that is there.",
        )
        check_packages(experiment)
        told = base_print(student)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(experiment.seed)
            student = adapter.wrap(student, tokenizer)
    check_trainable(student)
    student.train(False)
    return student, told


def place(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """The teacher, in eval mode, to where the student is; one that is spread, offloaded or quantised
    stays."""
    teacher.train(False)
    device = next(student.parameters()).device
    spread = hasattr(teacher, "hf_device_map") or quantised_bits(teacher) is not None
    spread |= any(p.is_meta for p in teacher.parameters())
    if not spread and next(teacher.parameters()).device != device:
        teacher.to(device)  # type: ignore[arg-type]  # transformers' decorator hides the signature
