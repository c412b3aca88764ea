"""Evaluation of a model on held-out rows: likelihoods of the references, and answers of its own.

Nothing here may disturb training: random state and module modes are put back, and no gradient is kept.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from distil.config.schema import EvalConfig
from distil.data.collate import collate
from distil.divergences import forward_kl
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.modes import eval_mode
from distil.engine.rollouts import Generated, generate, uniforms
from distil.engine.teacher_signal import SignalOf, TeacherSource, forward_on_device, signal_of
from distil.head import log_probabilities
from distil.metrics.base import (
    Generation,
    Metric,
    Need,
    Observations,
    ScoreTotals,
    compute_metrics,
    plan_metrics,
)
from distil.metrics.likelihood import Likelihood
from distil.types import IGNORE_INDEX, Report

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = "Dataset | Sequence[Row]"

HOW_IT_ANSWERS = ("max_new_tokens", "do_sample", "sampling_temperature", "top_k", "top_p")
"""Keys of ``eval`` that answers hang on; results name them."""
EVALUATION_STEP = -1
"""The step that sampling noise is drawn for: no optimizer step has it; every model gets the same."""


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of rows."""

    scores: dict[str, float | None]
    """In table order; None where there was nothing to compute a value from."""
    generations: list[Generation]
    """In the order of the rows."""
    scored_tokens: int = 0
    notes: list[str] = field(default_factory=list)
    """What was left out or came out as no number, and why."""


def plan(config: EvalConfig, rows: Rows, *, has_teacher: bool) -> tuple[list[Metric], list[str]]:
    """The metrics that ``evaluate_model`` will compute on ``rows``, and a note on each that is left out.

    Cheap: call it before models are loaded. Raises InputError for an unknown name, or for a metric that needs
    slots where no row has them.
    """
    available = set()
    if has_teacher:
        available.add(Need.TEACHER)
    if config.generation_rows:
        available.add(Need.GENERATIONS)
    if len(rows) and "slots" in rows[0] and any(row["slots"] for row in rows):
        available.add(Need.SLOTS)
    return plan_metrics(config.metrics, available)


def evaluate_model(
    model: PreTrainedModel,
    teacher: TeacherSource | None,
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    config: EvalConfig,
    seed: int,
    *,
    eos_ids: Collection[int],
    shared_vocabulary: int,
    progress: Report | None = None,
) -> Evaluation:
    """Score every row, answer the first ``config.generation_rows`` of them, and compute the planned metrics.

    The teacher may be ``model`` itself (KL 0, agreement 1), or what it said about these rows. ``progress``
    counts scored and answered rows together. Random state and module modes are as before afterwards.
    """
    metrics, notes = plan(config, rows, has_teacher=teacher is not None)
    answered = min(config.generation_rows, len(rows))
    total = len(rows) + answered

    def report(done: int) -> None:
        if progress is not None:
            progress(done, total)

    totals = score_rows(
        model,
        teacher,
        rows,
        pad_id(tokenizer),
        config.batch_size,
        shared_vocabulary,
        tokenizer=tokenizer,
        progress=lambda done, _total: report(done),
    )
    generations = answer_rows(
        model,
        [rows[i] for i in range(answered)],
        tokenizer,
        config,
        seed,
        eos_ids=eos_ids,
        progress=lambda done, _total: report(len(rows) + done),
    )
    with undisturbed():
        scores, more = compute_metrics(metrics, Observations(totals, generations))
    return Evaluation(scores, generations, totals.tokens, notes + more)


def score_rows(
    model: PreTrainedModel,
    teacher: TeacherSource | None,
    rows: Rows,
    pad_id: int,
    batch_size: int,
    shared_vocabulary: int,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: Report | None = None,
) -> ScoreTotals:
    """Sums over the scored tokens of ``rows``, in float64; the teacher's part in the same pass.

    Batches hold rows of like length, the longest first, and no batch's logits are held at once. Only to count
    bytes is ``tokenizer`` needed. The answer does not depend on ``batch_size`` but for rounding.
    """
    order = by_length([len(row["input_ids"]) for row in rows])
    forward, signal = Forward(model), signal_of(teacher, model)
    theirs = cast("PreTrainedModel", teacher) if isinstance(teacher, nn.Module) else None
    tokens, size = 0, 0
    sums_3 = torch.zeros(3, dtype=torch.float64)
    with undisturbed(model, theirs), torch.no_grad():
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = [rows[i] for i in numbers]
            count, batch_3 = _score_batch(forward, signal, numbers, batch, pad_id, shared_vocabulary)
            tokens += count
            sums_3 += batch_3
            size += 0 if tokenizer is None else _scored_bytes(batch, tokenizer)
            if progress is not None:
                progress(min(start + batch_size, len(order)), len(order))
    nll, kl, agreement = sums_3.tolist()
    return ScoreTotals(
        tokens=tokens,
        bytes=None if tokenizer is None else size,
        nll_sum=nll,
        kl_sum=None if teacher is None else kl,
        agreement_sum=None if teacher is None else round(agreement),
    )


def _score_batch(
    forward: Forward,
    signal: SignalOf | None,
    numbers: Sequence[int],
    batch: Sequence[Row],
    pad_id: int,
    shared_vocabulary: int,
) -> tuple[int, Tensor]:
    """Scored tokens of one batch, and the sums of NLL, KL and agreement over them (float64, on the CPU)."""
    tensors = collate(batch, pad_id)
    scored_BT, targets_N = scored_and_targets(tensors["labels"])
    inputs = (tensors["input_ids"], tensors["attention_mask"], scored_BT)
    student = forward_on_device(forward, inputs)
    teacher = None if signal is None else signal(numbers, inputs, student)
    parts = []
    for student_NV, teacher_NV, chunk_N in log_probabilities(
        student, teacher, targets_N.to(student.hidden_NH.device)
    ):
        rows_3N = student_NV.new_zeros(3, len(chunk_N))
        rows_3N[0] = -student_NV.gather(-1, chunk_N[:, None]).squeeze(-1)
        if teacher_NV is not None:
            ours_NV = student_NV[:, :shared_vocabulary].log_softmax(-1)
            theirs_NV = teacher_NV[:, :shared_vocabulary].log_softmax(-1)
            rows_3N[1] = forward_kl(theirs_NV, ours_NV)
            rows_3N[2] = ours_NV.argmax(-1) == theirs_NV.argmax(-1)
        parts.append(rows_3N)
    if not parts:
        return 0, torch.zeros(3, dtype=torch.float64)
    # One transfer a batch; summed on the CPU, since not every device has float64.
    return len(targets_N), torch.cat(parts, dim=1).cpu().double().sum(dim=1)


def _scored_bytes(batch: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> int:
    """UTF-8 bytes of the text that scored tokens stand for.

    Decoded from the tokens, not read from the row's text: a truncated row scores only the part that is left.
    """
    scored = [[token for token in row["labels"][1:] if token != IGNORE_INDEX] for row in batch]
    texts = _decode(scored, tokenizer)
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def answer_rows(
    model: PreTrainedModel,
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    config: EvalConfig,
    seed: int,
    *,
    eos_ids: Collection[int],
    progress: Report | None = None,
) -> list[Generation]:
    """The model's answer to each row's prompt, in the order of ``rows``; greedy unless ``config.do_sample``.

    With sampling, a row's noise is drawn from (seed, its index): every model meets the same.
    """
    order = by_length([len(row["prompt_ids"]) for row in rows])
    answers: dict[int, Generation] = {}
    with undisturbed(model), torch.no_grad():
        for start in range(0, len(order), config.batch_size):
            indices = order[start : start + config.batch_size]
            noise = None
            if config.do_sample:
                noise = uniforms(seed, EVALUATION_STEP, indices, config.max_new_tokens)
            written = generate(
                model,
                [rows[i]["prompt_ids"] for i in indices],
                config,
                eos_ids=eos_ids,
                pad_id=pad_id(tokenizer),
                uniforms=noise,
            )
            for i, answer in zip(indices, written, strict=True):
                answers[i] = _generation(rows[i], answer, tokenizer)
            if progress is not None:
                progress(len(answers), len(order))
    return [answers[i] for i in range(len(order))]


def _generation(row: Row, answer: Generated, tokenizer: PreTrainedTokenizerBase) -> Generation:
    text = _decode([answer.ids], tokenizer)[0]
    slots = json.loads(row["slots"]) if row.get("slots") else None
    return Generation(row["prompt"], row["response"], text, len(answer.ids), answer.ended, slots)


def _decode(ids: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Text without special tokens, spaces untouched."""
    texts: list[str] = tokenizer.batch_decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return texts


def entropy_floor(rows: Rows) -> dict[str, float]:
    """What nobody can beat: the entropy of the source, where rows carry their true ``log_probability``, nats.

    Keys are those of the likelihood metric. Empty where a row has none (one that was cut has none), or where
    more than its response is scored (the probability is that of the response).
    """
    nats, tokens, size = 0.0, 0, 0
    for row in rows:
        scored = sum(label != IGNORE_INDEX for label in row["labels"])
        if row.get("log_probability") is None or scored != len(row["input_ids"]) - len(row["prompt_ids"]):
            return {}
        nats -= row["log_probability"]
        tokens += scored
        size += len(row["response"].encode("utf-8"))
    values = Likelihood().compute(Observations(ScoreTotals(tokens, size, nats)))
    return {name: value for name, value in values.items() if value is not None}


def by_length(lengths: Sequence[int]) -> list[int]:
    """Row indices, longest row first: little padding, and what does not fit into memory fails at once."""
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to fill batches with. Padding is masked by its place, so any id serves where there is none."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


@contextmanager
def undisturbed(*models: PreTrainedModel | None) -> Iterator[None]:
    """Eval mode inside; afterwards random state (python, numpy, torch) and all modules' modes are back."""
    present = [model for model in models if model is not None]
    devices = {p.device.index for model in present for p in model.parameters() if p.is_cuda}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=sorted(devices)), eval_mode(*present):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
