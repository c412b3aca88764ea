"""What a run cost, as numbers that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distil.report.comparison.statistics import in_reach
from distil.report.run_directory import Metric, RunRecord, mapping, number

Cost = Mapping[str, Any]
"""The contents of ``cost.json``."""
WHOLE = ".0f"


def spent(cost: Cost, kind: str) -> float | None:
    """Steps, tokens (those scored, the sampled ones among them) or seconds of training."""
    if kind == "seconds":
        return _amount(mapping(cost.get("seconds")).get("train"))
    if kind == "steps":
        return _amount(cost.get("steps"))
    scored = _amount(cost.get("scored_tokens"))
    return None if scored is None else scored + (_amount(cost.get("rollout_tokens")) or 0)


def _amount(value: Any) -> float | None:
    return in_reach(number(value))


COSTS: tuple[tuple[Metric, Callable[[Cost], Any]], ...] = (
    (Metric("train_seconds", "s", False, WHOLE), lambda cost: spent(cost, "seconds")),
    (Metric("total_seconds", "s", False, WHOLE), lambda cost: mapping(cost.get("seconds")).get("total")),
    (Metric("steps", format=WHOLE), lambda cost: spent(cost, "steps")),
    (Metric("tokens", format=WHOLE), lambda cost: spent(cost, "tokens")),
    (Metric("sampled_tokens", format=WHOLE), lambda cost: cost.get("rollout_tokens")),
    (Metric("peak_memory", "bytes", format=WHOLE), lambda cost: cost.get("peak_memory_bytes")),
    (
        Metric("trainable_parameters", format=WHOLE),
        lambda cost: mapping(cost.get("parameters")).get("trainable"),
    ),
    (Metric("student_size", "bytes", format=WHOLE), lambda cost: cost.get("student_bytes")),
)
"""What the table of costs shows. What was chosen, not measured, has no best; nor has memory: jobs that share
a process inherit what earlier ones left."""


def cost_of(run: RunRecord, read: Callable[[Cost], Any]) -> float | None:
    """One of ``COSTS`` of ``run``; None where it was not recorded."""
    return _amount(read(run.cost or {}))
