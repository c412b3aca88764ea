"""What every tracker can do, and the tracker that does nothing."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distil.effect import leaves

logger = logging.getLogger(__name__)

MODELS = ("teacher", "student_before", "student_after")
"""The columns of a results table, as results.json names them."""

UNITS = {
    "train/loss": "nats per scored token, weighted as the method says",
    "train/*_per_token": "nats per scored token",
    "train/rollout_length": "tokens of a rollout, its EOS among them",
    "train/rollout_unended": "fraction of rollouts without an EOS",
    "train/rollout_empty": "fraction of rollouts without a token before their EOS",
    "train/rollout_repetition": "fraction of 4-grams that repeat one of the same rollout",
    "train/rollout_entropy": "nats, of the histogram of tokens written",
    "train/grad_norm": "norm over all trained parameters, before clipping",
    "train/learning_rate": "step length of the optimizer",
    "train/seconds": "s of training, earlier sessions included",
    "train/tokens": "scored tokens trained on, the student's own among them",
    "validation/*_per_token": "nats per scored token",
    "validation/top1_agreement": "fraction of scored tokens",
    "cost/seconds/*": "s",
    "cost/*_bytes": "bytes",
    "cost/parameters/*": "parameters",
}
"""Unit and denominator by scalar, for whoever reads a chart; ``*`` stands for the rest of a name. Those of
results are in the results table."""


class Tracker(ABC):
    """One run's record somewhere else. A context manager: left by an error, it is finished as failed.

    A run that goes on from a checkpoint starts a tracker again and hands it the scalars of its earlier
    sessions first: a tracker that keeps files begins them anew, so a resumed run is one run, each step once.
    """

    @abstractmethod
    def log(self, scalars: Mapping[str, float], step: int, ago: float = 0.0) -> None:
        """Record scalars of optimizer step ``step``; their names say unit and denominator.

        ``ago``: seconds since they were measured, where that was in an earlier session.
        """

    @abstractmethod
    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record texts as one table; the keys of the first row are its columns."""

    @abstractmethod
    def summary(self, results: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Record what ``results.json`` and ``cost.json`` say: the results table, and its numbers by name."""

    def files(self, run_dir: Path) -> None:
        """Keep files of the finished run ``run_dir`` that the config asks for. Most trackers keep none."""
        return

    @abstractmethod
    def finish(self, exit_code: int = 0) -> None:
        """Write everything out and close. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = 0 if error is None else int(getattr(error, "exit_code", 1))
        try:
            self.finish(code)
        except Exception:
            # The run's own result or error is what the user must see, not this one.
            logger.exception("The tracker could not be closed")


class NoTracker(Tracker):
    """``tracker=none``: the run directory is all."""

    def log(self, scalars: Mapping[str, float], step: int, ago: float = 0.0) -> None:
        """Do nothing."""

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def summary(self, results: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, exit_code: int = 0) -> None:
        """Do nothing."""


def numbers(results: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, float]:
    """The final numbers of a run: ``student_after/nll``, ``cost/seconds/train``; what is no number is not."""
    named = {model: results.get(model) for model in MODELS} | {"cost": cost}
    return {
        name: float(value)
        for name, value in leaves(named, join="/").items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def results_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The results table: its columns, and a row a metric. None: not measured."""
    columns = ["metric", "unit", "better", *MODELS]
    better = {True: "higher", False: "lower", None: ""}
    rows = []
    for name, about in results.get("metrics", {}).items():
        scores = [(results.get(model) or {}).get(name) for model in MODELS]
        rows.append([name, about.get("unit", ""), better[about.get("higher_is_better")], *scores])
    return columns, rows
