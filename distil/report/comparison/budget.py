"""What was held equal, and the validation curves read where all runs have spent the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distil.metrics.base import WHILE_TRAINING
from distil.report.comparison.costs import spent
from distil.report.comparison.runs import seed_of
from distil.report.comparison.statistics import in_reach
from distil.report.comparison.table import Column, column
from distil.report.run_directory import Curve, Metric, RunRecord, mapping, number

KINDS = ("steps", "tokens", "seconds")
NEAR = {"steps": 0.0, "tokens": 0.01, "seconds": 0.05}
"""Relative spread up to which runs count as having spent the same."""
BESIDE = {"steps": 0.0, "tokens": 0.01, "seconds": 0.01}
"""How far from the amount, relative to it, a curve that begins or ends beside it is still read: the same rows
in another order make some tokens more or less."""
CURVES = "validation/"
HIGHER_IS_BETTER = {"train/loss": False} | {f"{CURVES}{key}": more for key, more in WHILE_TRAINING.items()}
"""The direction of the scalars that have one; of any other nothing is said."""
NAMES = {"nll_per_token": "nll", "kl_per_token": "kl_to_teacher"}
"""What the tables of scores call what a curve of the validation rows shows."""


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
    lost: tuple[str, ...]
    """Runs of which a curve is no finite number there: they diverged."""
    rows: int | None
    """How many validation rows the curves are of; None: not recorded, or not the same in all runs."""

    @property
    def compares(self) -> bool:
        """Whether it compares two groups: it does not where all but one were evaluated later."""
        groups = {label for each in self.columns for label in each.cells}
        return bool(self.lost) or len(groups - {*self.unread}) > 1 or len(groups) == 1


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


def timed(run: RunRecord, name: str, kind: str) -> dict[int, tuple[float, float | None]]:
    """The points of a curve of ``run`` by step: (steps, tokens or seconds spent, value; None: not finite)."""
    curve: Curve = run.curves.get(name, ())
    clock = run.clocks.get(kind, {})
    found = {}
    for step, value in curve:
        x = in_reach(float(step) if kind == "steps" else clock.get(step))
        if x is not None:
            found[step] = (x, in_reach(value))
    return found


def along(run: RunRecord, name: str, kind: str) -> list[tuple[float, float | None]]:
    """The same points in their order."""
    return list(timed(run, name, kind).values())


def read_at(points: Sequence[tuple[float, float | None]], amount: float, beside: float = 0.0) -> float | None:
    """The curve's value at ``amount``, its neighbours joined by a straight line.

    Up to ``beside`` (a share of ``amount``) beyond its ends it is the value there, further beyond None; None
    also where a neighbour is no finite number: no line leads over a gap.
    """
    places = [x for x, _ in points]
    slack = 1e-9 * abs(amount)
    reach = max(slack, beside * abs(amount))
    after = bisect_left(places, amount - slack)
    if after == len(points):
        return points[-1][1] if places[-1] >= amount - reach else None
    x, y = points[after]
    if after == 0:
        return y if x <= amount + reach else None
    if x <= amount + slack:
        return y
    before_x, before_y = points[after - 1]
    if y is None or before_y is None:
        return None
    return before_y + (y - before_y) * (amount - before_x) / (x - before_x)


def direction(name: str) -> bool | None:
    """Whether more is better in the curve ``name``; None where neither is."""
    return HIGHER_IS_BETTER.get(name)


def equal_budget(
    groups: Mapping[str, Sequence[RunRecord]], baselines: Mapping[str, str | None], kind: str
) -> EqualBudget | None:
    """The validation curves that all runs have, read at the largest budget that all reached; None without,
    and where none of them has a value there.

    A run that diverged reached what it spent, and has no value from there on.
    """
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
    columns, found = [], False
    for name in names:
        values = {
            label: {seed_of(run): read_at(along(run, name, kind), amount, BESIDE[kind]) for run in each}
            for label, each in groups.items()
        }
        found = found or any(value is not None for each in values.values() for value in each.values())
        measured = name.removeprefix(CURVES)
        metric = Metric(NAMES.get(measured, measured), higher_is_better=direction(name))
        columns.append(column(metric, values, baselines))
    if not found:  # the run that spent least ended before any other was evaluated
        return None
    first = {id(run): max(along(run, name, kind)[0][0] for name in names) for run in runs}
    late = {which for which, begins in first.items() if begins > amount * (1 + BESIDE[kind])}
    unread = tuple(label for label, each in groups.items() if any(id(run) in late for run in each))
    lost = tuple(
        run.path.resolve().name
        for run in runs
        if id(run) not in late
        and any(read_at(along(run, name, kind), amount, BESIDE[kind]) is None for name in names)
    )
    early = max(ends) > amount * (1 + NEAR[kind]) + 1e-9
    counts = {_validation_rows(run) for run in runs}
    rows = counts.pop() if len(counts) == 1 else None
    return EqualBudget(kind, amount, tuple(columns), early, unread, lost, rows)


def _validation_rows(run: RunRecord) -> int | None:
    """How many rows were evaluated on the way: those of the split, up to a limit of the config."""
    there = number(run.results.data.get("validation_rows")) if run.results else None
    most = number(mapping(run.config.get("eval")).get("during_training_rows"))
    return None if there is None or most is None else int(min(there, most))
