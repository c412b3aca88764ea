"""What a run works on: tokenizer, rows, teacher, student; loaded together, refused early."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil.adapters.base import adapter_of
from distil.adapters.existing import load_existing
from distil.config.schema import DataConfig, EvalConfig, ExperimentConfig
from distil.data.encode import stop_ids
from distil.data.malformed import MALFORMED
from distil.data.row_notes import few_note, left_out_note
from distil.data.splits import Splits, load_splits
from distil.engine.anatomy import eos_ids, position_limit, trained_length
from distil.engine.evaluation import plan
from distil.engine.self_teacher import adapter_off
from distil.models import (
    CALIBRATION_ROWS,
    LoadedStudent,
    load_skeleton,
    load_student,
    load_teacher,
    load_tokenizer,
    needs_calibration,
    shared_vocabulary,
)
from distil.models.sources import student_source, trusted
from distil.types import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a run works on."""

    tokenizer: PreTrainedTokenizerBase
    splits: Splits
    teacher: PreTrainedModel | None
    """Beside the student while it trains; None: there is none, or what it says is cached."""
    student: PreTrainedModel
    shared_vocabulary: int
    eos_ids: tuple[int, ...]
    notes: list[str]
    base: LoadedStudent
    """What the student was before an adapter came on it."""
    teacher_facts: PreTrainedModel | None = None
    """The teacher, or the teacher without weights, for what its config tells."""

    def rows_while_training(self, config: EvalConfig) -> Dataset:
        """The validation rows of the cheap evaluation. A cache answers by their numbers: all take these."""
        return _first(self.splits.validation, config.during_training_rows)


def load_parts(config: ExperimentConfig, *, wants_teacher: bool, teacher_stays: bool = True) -> Parts:
    """Tokenizer, data and models; what is odd but allowed ends in ``notes``.

    ``teacher_stays``: false where its caches answer for it: its weights are not loaded then.
    """
    network = config.run.allow_network
    tokenizer, notes = load_tokenizer(config.model, allow_network=network)
    notes += trusted(config.model)
    splits = load_splits(config.data, tokenizer, allow_network=network)
    notes += _told([*splits.notes, *_of_sizes(config.data, splits)])
    wants_teacher = wants_teacher and config.model.teacher.path is not None
    # Refused here, before a model loads.
    plan(config.eval, splits.test, has_teacher=wants_teacher and config.eval.teacher)
    calibration = None
    if needs_calibration(config.model):
        calibration = _first(splits.train, CALIBRATION_ROWS)["input_ids"]
    # The student first: what does not fit it is refused before a large teacher loads.
    student, loaded, more = load_adapted_student(config, tokenizer, calibration)
    notes += more
    notes += _told(filter(None, [adapter_of(config.peft).odd_size(student)]))
    teacher: PreTrainedModel | None = None
    if wants_teacher and config.model.teacher.is_self:
        teacher = adapter_off(student)
    elif wants_teacher and teacher_stays:
        teacher = load_teacher(config.model, allow_network=network)
    facts = teacher
    if wants_teacher and teacher is None:
        facts = load_skeleton(config.model, allow_network=network)
    notes += _told(_check_positions(config, splits, {"teacher": facts, "student": student}))
    shared = shared_vocabulary(facts, student, tokenizer)
    stops = ending_ids(stop_ids(config.data, tokenizer), facts, student)
    return Parts(tokenizer, splits, teacher, student, shared, stops, notes, loaded, facts)


def _of_sizes(config: DataConfig, splits: Splits) -> Iterator[str]:
    """Notes on what there is of rows. What is left out is said now; the results count it by themselves."""
    lost = {reason: count for reason, count in splits.dropped.items() if reason != MALFORMED}
    kept = len(splits.train) + len(splits.validation) + len(splits.test)
    if lost:
        logger.warning(left_out_note(config, lost, kept), extra={"said_once": True})
    few = few_note(config, len(splits.test)) if "test" in splits.aside else None
    if few is not None:
        yield few


def _told(notes: Iterable[str]) -> list[str]:
    """``notes``, each of them said in a warning."""
    said = list(notes)
    for note in said:
        logger.warning(note, extra={"said_once": True})
    return said


def _first(rows: Dataset, count: int) -> Dataset:
    return rows.select(range(min(count, len(rows))))


def load_adapted_student(
    config: ExperimentConfig,
    tokenizer: PreTrainedTokenizerBase,
    calibration: Sequence[Sequence[int]] | None = None,
) -> tuple[PreTrainedModel, LoadedStudent, list[str]]:
    """The student behind its adapter, what it was before, and notes. The adapter's start is from the seed."""
    adapter = adapter_of(config.peft)
    loaded = load_student(
        config.model,
        config.seed,
        calibration,
        quantization=adapter.quantization,
        allow_network=config.run.allow_network,
    )
    notes = []
    if loaded.kept_layers is not None:
        whose = "the teacher" if config.model.student.path is None else "model.student.path"
        layers = ", ".join(map(str, loaded.kept_layers))
        notes.append(
            f"The student was made of these layers of {whose}: {layers} (model.student.keep_layers)."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = adapter.wrap(loaded.model, tokenizer)
    if adapter.adapts:
        untyped: Any = student
        # So that who loads the base by the name in the adapter's files gets the same version of it.
        untyped.peft_config[untyped.active_adapter].revision = student_source(config.model).revision
    existing = config.model.student.adapter
    if existing is not None:
        note = load_existing(student, Path(existing).expanduser(), loaded.name, loaded.base_print)
        notes += [] if note is None else [note]
    return student, loaded, notes


def _check_positions(
    config: ExperimentConfig, splits: Splits, models: Mapping[str, PreTrainedModel | None]
) -> list[str]:
    """Refuse rows that are longer than a model's table of positions (GPT-2); a note on those that are longer
    than a model without one was made for."""
    given = {who: model for who, model in models.items() if model is not None}
    who, limit = _least({who: position_limit(model) for who, model in given.items()})
    if longer := _longer_than(limit, config, splits):
        raise InputError(
            f"data.max_length={config.data.max_length}: there are rows of {max(longer)} tokens, but "
            f"model.{who} has {limit} positions. Give data.max_length={limit}."
        )
    who, limit = _least({who: trained_length(model) for who, model in given.items()})
    if not (longer := _longer_than(limit, config, splits)):
        return []
    rows = "1 row is" if len(longer) == 1 else f"{len(longer):,} rows are"
    return [
        f"{rows} longer than the {limit} tokens that model.{who} was made for (up to {max(longer)}). "
        f"data.max_length={limit} keeps rows within them."
    ]


def _least(limits: Mapping[str, int | None]) -> tuple[str, float]:
    """The smallest of the ``limits`` that there are, and whose it is."""
    return min(((who, n) for who, n in limits.items() if n is not None), key=itemgetter(1), default=("", inf))


def _longer_than(limit: float, config: ExperimentConfig, splits: Splits) -> list[int]:
    """How many tokens each row has that has more than ``limit``."""
    if config.data.max_length <= limit:
        return []
    parts = (splits.train, splits.validation, splits.test)
    chunks = [chunk for rows in parts for chunk in rows.data.table.column("input_ids").chunks]
    return [tokens for chunk in chunks for tokens in chunk.value_lengths().to_pylist() if tokens > limit]


def ending_ids(stops: Collection[int], *models: PreTrainedModel | None) -> tuple[int, ...]:
    """Where generation ends: what the data teach to end with, and what the models came to end with."""
    ids = set(stops)
    for model in models:
        if model is not None and model.generation_config is not None:
            ids |= eos_ids(model.generation_config)
    return tuple(sorted(ids))
