"""What is odd about a training that is about to start, in the library's words."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from distil.adapters.base import adapter_of
from distil.advice import advice
from distil.api.errors import in_words
from distil.config.schema import ExperimentConfig
from distil.engine.trainer import DistillationTrainer

logger = logging.getLogger(__name__)

SMALLER = "give a smaller student_model, or one with only some of the teacher's layers."
STILL = 0.1
"""From which share of weights on, that a step is too small to move, it is said."""


def advise(
    trainer: DistillationTrainer, experiment: ExperimentConfig, *, fresh: bool, evaluates: bool
) -> None:
    """Say it in warnings. ``fresh``: whether the student's weights are random; ``evaluates``: whether there
    are rows to evaluate on."""
    steps, args = trainer.planned_steps(), trainer.args
    if fresh:
        student = replace(experiment.model.student, init="random")
        experiment = replace(experiment, model=replace(experiment.model, student=student))
    rate = adapter_of(experiment.peft).odd_rate(experiment.trainer.learning_rate)
    smaller = SMALLER if _as_large(trainer) else None
    odd = advice(experiment, trainer.terms(), steps, args.get_warmup_steps(steps), smaller)
    said = [in_words(line) for line in ([rate, *odd] if rate else odd)]
    if evaluates and args.eval_strategy == "steps" and args.eval_steps and args.eval_steps > steps:
        said.append(
            f"eval_steps={args.eval_steps:.0f}, but the run has {steps} step{'s' * (steps != 1)}: "
            "eval_dataset is not looked at "
            f"while training. Try eval_steps={max(1, steps // 4)}, or evaluate(eval_dataset) afterwards."
        )
    if evaluates and args.eval_strategy == "no":
        said.append(
            'TrainingArguments have eval_strategy="no": eval_dataset is not looked at while training. Give '
            'eval_strategy="steps" (and eval_steps), or evaluate(eval_dataset) afterwards.'
        )
    model: Any = trainer.model
    still = still_share(model, args.learning_rate)
    if still >= STILL:
        dtype = str(model.dtype).removeprefix("torch.")
        said.append(
            f"The student is trained in {dtype}, in which a step of learning_rate={args.learning_rate:g} is "
            f"lost in rounding for {still:.0%} of its weights. Load it in float32 (dtype=torch.float32); "
            "TrainingArguments(bf16=True) is as fast."
        )
    for line in said:
        logger.warning(line)


def _as_large(trainer: DistillationTrainer) -> bool:
    """Whether the student in hand has as many weights as the teacher in hand, whatever their names say."""
    models: tuple[Any, ...] = (trainer.model, trainer.teacher)
    counts = [sum(p.numel() for p in model.parameters()) for model in models if model is not None]
    return len(set(counts)) == 1


def still_share(model: nn.Module, learning_rate: float) -> float:
    """Share of the trained weights that a step of ``learning_rate`` leaves where they are: it is less than
    half of the distance to the next number of their type. Of those in half precision; no others are counted.
    """
    half = (torch.bfloat16, torch.float16)
    trained = [p.detach() for p in model.parameters() if p.requires_grad and p.dtype in half]
    still: int = sum(int((p + learning_rate * p.sign() == p).logical_and(p != 0).sum()) for p in trained)
    return still / max(1, sum(p.numel() for p in trained))
