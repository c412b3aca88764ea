"""What was held equal, and the validation curves read where all runs have spent the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distil.report.comparison.costs import spent
from distil.report.comparison.runs import seed_of
from distil.report.comparison.table import Column, column
from distil.report.run_directory import Curve, Metric, RunRecord

KINDS = ("steps", "tokens", "seconds")
NEAR = {"steps": 0.0, "tokens": 0.01, "seconds": 0.05}
"""Relative spread up to which runs count as having spent the same."""
CURVES = "validation/"
_LOWER = ("nll", "kl", "loss", "perplexity", "bits_per_byte", "cross_entropy", "divergence")
_HIGHER = ("agreement", "accuracy", "rouge", "bleu", "faithful")


@dataclass(frozen=True)
class Held:
    """Whether all runs spent the same of one thing."""

    kind: str
    equal: bool | None
    """None: not recorded."""
    means: Mapping[str, float]
    """By group: the mean of what its runs spent."""


@dataclass(frozen=True)
class EqualBudget:
    """Validation scores at the largest budget that every run reached."""

    kind: str
    amount: float
    columns: tuple[Column, ...]
    early: bool
    """Whether some run went on beyond it: its learning rate had not come down yet."""
    unread: tuple[str, ...]
    """Groups of which a run was first evaluated later than that."""


def held(groups: Mapping[str, Sequence[RunRecord]]) -> tuple[Held, ...]:
    """What was held equal over all runs, of steps, tokens and seconds."""
    found = []
    for kind in KINDS:
        by_group = {label: [spent(run.cost or {}, kind) for run in runs] for label, runs in groups.items()}
        values = [value for each in by_group.values() for value in each if value is not None]
        missing = any(value is None for each in by_group.values() for value in each)
        equal = None if missing else max(values) - min(values) <= NEAR[kind] * max(values)
        means = {
            label: sum(v for v in each if v is not None) / len(each)
            for label, each in by_group.items()
            if None not in each
        }
        found.append(Held(kind, equal, means))
    return tuple(found)


def timed(run: RunRecord, name: str, kind: str) -> dict[int, tuple[float, float]]:
    """The finite points of a curve of ``run`` by step: (steps, tokens or seconds spent, value)."""
    curve: Curve = run.curves.get(name, ())
    clock = run.clocks.get(kind, {})
    points = ((step, float(step) if kind == "steps" else clock.get(step), value) for step, value in curve)
    return {step: (x, value) for step, x, value in points if x is not None and value is not None}


def along(run: RunRecord, name: str, kind: str) -> list[tuple[float, float]]:
    """The same points in their order."""
    return list(timed(run, name, kind).values())


def read_at(points: Sequence[tuple[float, float]], amount: float) -> float | None:
    """The curve's value at ``amount``, its neighbours joined by a straight line; None beyond its ends."""
    places = [x for x, _ in points]
    slack = 1e-9 * abs(amount)
    after = bisect_left(places, amount - slack)
    if after == len(points) or places[0] > amount + slack:
        return None
    x, y = points[after]
    if after == 0 or x <= amount + slack:
        return y
    before_x, before_y = points[after - 1]
    return before_y + (y - before_y) * (amount - before_x) / (x - before_x)


def direction(name: str) -> bool | None:
    """Whether more is better, told by the name of a validation curve; None where the name does not say."""
    bare = name.removeprefix(CURVES)
    if bare.startswith(_LOWER):
        return False
    return True if any(word in bare for word in _HIGHER) else None


def equal_budget(
    groups: Mapping[str, Sequence[RunRecord]], baselines: Mapping[str, str | None], kind: str
) -> EqualBudget | None:
    """The validation curves that all runs have, read at the largest budget that all reached; None without."""
    runs = [run for each in groups.values() for run in each]
    names = [
        name
        for name in runs[0].curves
        if name.startswith(CURVES)
        and direction(name) is not None
        and all(along(run, name, kind) for run in runs)
    ]
    if not names:
        return None
    ends = [max(x for name in names for x, _ in along(run, name, kind)) for run in runs]
    amount = min(ends)
    columns = []
    for name in names:
        values = {
            label: {seed_of(run): read_at(along(run, name, kind), amount) for run in each}
            for label, each in groups.items()
        }
        metric = Metric(name.removeprefix(CURVES), "", direction(name), ".3f")
        columns.append(column(metric, values, baselines))
    unread = tuple(
        label for label in groups if any(None in column.cells[label].by_seed.values() for column in columns)
    )
    return EqualBudget(kind, amount, tuple(columns), max(ends) > amount * (1 + NEAR[kind]) + 1e-9, unread)
