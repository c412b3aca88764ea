"""What a metric is: the values it gives, what it needs, and how it gets them from an evaluation.

A metric is one file of this package: a subclass of ``Metric`` under ``@register_metric(name)``. It imports
nothing heavy at module level, because the names must be known to check a config.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any, ClassVar

from distil.registry import Registry
from distil.types import InputError


class Need(StrEnum):
    """What a metric cannot be computed without."""

    TEACHER = "teacher"
    """A teacher that scores the same rows."""
    GENERATIONS = "generations"
    """Answers that the model wrote itself."""
    SLOTS = "slots"
    """What each instruction asks for, in checkable form: only some data has it."""


@dataclass(frozen=True)
class Value:
    """One number of a table: its unit, its good direction (None: neither), how to print it, what it says."""

    unit: str
    higher_is_better: bool | None
    format: str
    """A format specification: ``format(number, value.format)``."""
    description: str


WHILE_TRAINING = {"nll_per_token": False, "kl_per_token": False, "top1_agreement": True}
"""What an evaluation during training gives of ``ScoreTotals``, and whether more of it is better."""
OF_TEACHER = ("kl_per_token", "top1_agreement")
"""Those that nobody can measure without a teacher."""


@dataclass(frozen=True)
class ScoreTotals:
    """Sums over all scored tokens of all rows, in float64. Divided once, here and nowhere else."""

    tokens: int
    bytes: int | None
    """UTF-8 bytes of the text that the scored tokens stand for (None: not counted)."""
    nll_sum: float
    """Negative log-likelihood in nats, over the model's full vocabulary."""
    kl_sum: float | None = None
    """KL(teacher || model) in nats at temperature 1, over the ids that both share (None: no teacher)."""
    agreement_sum: int | None = None
    """Tokens at which both find the same shared id most likely (None: no teacher)."""

    @property
    def nll_per_token(self) -> float | None:
        """Nats a scored token; None where nothing was scored."""
        return _ratio(self.nll_sum, self.tokens)

    @property
    def kl_per_token(self) -> float | None:
        """KL(teacher || model), nats a scored token."""
        return _ratio(self.kl_sum, self.tokens)

    @property
    def top1_agreement(self) -> float | None:
        """Share of the scored tokens at which both argmaxes agree."""
        return _ratio(self.agreement_sum, self.tokens)

    @property
    def perplexity(self) -> float | None:
        """exp(sum / sum), once: no mean of means. Not comparable across tokenizers."""
        nll = self.nll_per_token
        # exp overflows near 709; no model that is any use comes near.
        return None if nll is None else math.exp(nll) if nll < 700 else math.inf

    def while_training(self) -> dict[str, float]:
        """What is logged of an evaluation during training; what could not be computed is left out."""
        scalars = {name: getattr(self, name) for name in WHILE_TRAINING}
        return {name: value for name, value in scalars.items() if value is not None}

    @property
    def bits_per_byte(self) -> float | None:
        """Bits a byte of text: comparable across tokenizers."""
        bits = _ratio(self.nll_sum, self.bytes)
        return None if bits is None else bits / math.log(2)


def _ratio(total: float | None, count: int | None) -> float | None:
    return total / count if total is not None and count else None


@dataclass(frozen=True)
class Generation:
    """One answer of one model to one held-out row."""

    prompt: str
    reference: str
    text: str
    """The answer, special tokens left out."""
    tokens: int
    """Length of the answer; a closing EOS counts."""
    ended: bool
    """Whether it ended by itself, with EOS, before the limit."""
    slots: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Observations:
    """All that a metric may look at."""

    totals: ScoreTotals
    generations: Sequence[Generation] = field(default_factory=tuple)


class Metric(ABC):
    """Computes one or more values, in the order of the table. Their names are unique across metrics."""

    values: ClassVar[Mapping[str, Value]]
    requires: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def compute(self, observed: Observations) -> dict[str, float | None]:
        """A number for each name in ``values``; None where there is nothing to compute it from."""


METRICS: Registry[type[Metric]] = Registry("eval.metrics", "distil.metrics")
register_metric = METRICS.register


def plan_metrics(names: Sequence[str], available: Collection[Need]) -> tuple[list[Metric], list[str]]:
    """The metrics to compute in this run, and a note on each that is left out.

    The rule: what the user's other settings turned off (teacher, generations) leaves a metric out, with a
    note; what the data would have to bring (slots) is an InputError, since no one asks for it by default.
    An unknown name is an InputError too.
    """
    metrics: list[Metric] = []
    notes: list[str] = []
    for name in dict.fromkeys(names):
        metric = METRICS.get(name).factory()
        missing = [need for need in Need if need in metric.requires and need not in available]
        if Need.SLOTS in missing:
            raise InputError(
                f"eval.metrics={name} checks answers against the rows' `slots`, and this data has no such "
                f"column. Leave {name} out of eval.metrics, or use data that brings slots (data=embedded)."
            )
        if missing:
            notes.append(f"{name} is left out: this evaluation has no {' and no '.join(missing)}.")
        else:
            metrics.append(metric)
    return metrics, notes


def compute_metrics(
    metrics: Sequence[Metric], observed: Observations
) -> tuple[dict[str, float | None], list[str]]:
    """Every value of ``metrics`` in table order, and a note on each that is no finite number (then None), or
    is none of those that its metric says it has."""
    scores: dict[str, float | None] = {}
    notes: list[str] = []
    for metric in metrics:
        found = metric.compute(observed)
        if odd := sorted(found.keys() ^ metric.values.keys()):
            notes.append(
                f"{type(metric).__name__} computes {', '.join(found) or 'nothing'}, and its values are "
                f"{', '.join(metric.values)}: {', '.join(odd)} cannot be shown."
            )
        for name, number in found.items():
            finite = number is None or math.isfinite(number)
            scores[name] = number if finite else None
            if not finite:
                notes.append(f"{name} is {number}.")
    return scores, notes


def describe(metrics: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    """The ``metrics`` part of results.json: what describes each value, in table order."""
    return {name: asdict(value) for metric in metrics for name, value in metric.values.items()}


def mean(numbers: Collection[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    return fmean(numbers) if numbers else None
