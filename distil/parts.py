"""What a run works on: tokenizer, rows, teacher, student; loaded together, refused early."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil.adapters.base import ADAPTERS
from distil.config.schema import ExperimentConfig
from distil.data.encode import stop_ids
from distil.data.splits import Splits, load_splits
from distil.evaluation import plan
from distil.models import (
    CALIBRATION_ROWS,
    load_student,
    load_teacher,
    load_tokenizer,
    needs_calibration,
    shared_vocabulary,
)
from distil.rollouts import position_limit
from distil.types import InputError


@dataclass(frozen=True)
class Parts:
    """What a run works on."""

    tokenizer: PreTrainedTokenizerBase
    splits: Splits
    teacher: PreTrainedModel | None
    student: PreTrainedModel
    shared_vocabulary: int
    eos_ids: tuple[int, ...]
    notes: list[str]


def load_parts(config: ExperimentConfig, *, wants_teacher: bool) -> Parts:
    """Tokenizer, data and models; what is odd but allowed ends in ``notes``."""
    network = config.run.allow_network
    tokenizer, notes = load_tokenizer(config.model, allow_network=network)
    splits = load_splits(config.data, tokenizer, allow_network=network)
    wants_teacher = wants_teacher and config.model.teacher.path is not None
    # Refused here, before a model loads.
    plan(config.eval, splits.test, has_teacher=wants_teacher and config.eval.teacher)
    teacher = load_teacher(config.model, allow_network=network) if wants_teacher else None
    calibration = None
    if needs_calibration(config.model):
        calibration = splits.train.select(range(min(CALIBRATION_ROWS, len(splits.train))))["input_ids"]
    loaded = load_student(config.model, config.seed, calibration, allow_network=network)
    if loaded.kept_layers is not None:
        notes.append(f"The student keeps the teacher's layers {', '.join(map(str, loaded.kept_layers))}.")
    student = ADAPTERS.get(config.peft.name).factory(config.peft).wrap(loaded.model)
    _check_positions(config, splits, {"teacher": teacher, "student": student})
    shared = shared_vocabulary(teacher, student, tokenizer)
    eos_ids = _eos_ids(stop_ids(config.data, tokenizer), teacher, student)
    return Parts(tokenizer, splits, teacher, student, shared, eos_ids, notes)


def _check_positions(
    config: ExperimentConfig, splits: Splits, models: Mapping[str, PreTrainedModel | None]
) -> None:
    """Refuse rows that are longer than a model's table of positions (GPT-2)."""
    limits = {who: position_limit(model) for who, model in models.items() if model is not None}
    who, limit = min(((w, n) for w, n in limits.items() if n), key=lambda item: item[1], default=(None, None))
    if limit is None or config.data.max_length <= limit:
        return
    parts = (splits.train, splits.validation, splits.test)
    longest = max((len(ids) for rows in parts for ids in rows["input_ids"]), default=0)
    if longest > limit:
        raise InputError(
            f"data.max_length={config.data.max_length}: there are rows of {longest} tokens, but model.{who} "
            f"has {limit} positions. Give data.max_length={limit}."
        )


def _eos_ids(stops: Collection[int], *models: PreTrainedModel | None) -> tuple[int, ...]:
    """Where generation ends: what the data teach to end with, and what the models came to end with."""
    ids = set(stops)
    for model in models:
        if model is not None and model.generation_config is not None:
            eos = model.generation_config.eos_token_id
            ids |= set(eos) if isinstance(eos, list) else {eos}
    return tuple(sorted(i for i in ids if i is not None))
