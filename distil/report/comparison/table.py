"""One number over groups and seeds: means, paired differences, and whether a best can be named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from distil.report.comparison.statistics import Estimate, estimate, paired
from distil.report.run_directory import Metric

BySeed = Mapping[int, float | None]
"""A group's value in the run of each seed. None: that run has none (a NaN, a division by zero)."""

BETTER, WORSE, EITHER = "better", "worse", "not separable"


@dataclass(frozen=True)
class Cell:
    """One group in one column."""

    by_seed: BySeed
    estimate: Estimate | None
    """None where one of the group's runs has no value: a mean of the others would flatter it."""
    difference: Estimate | None
    """Value less the baseline's, paired over common seeds. None: the baseline itself, no common seed, or
    a run of either has no value."""
    verdict: str
    """``better``, ``worse`` or ``not separable`` from the baseline; empty where neither is better and the
    difference is one, or is without a spread: of what was chosen."""


@dataclass(frozen=True)
class Column:
    """One metric, and who is best in it."""

    metric: Metric
    cells: Mapping[str, Cell]
    """By group, in the order of the comparison."""
    leader: str | None
    """The group that is ahead of most others over common seeds; None where neither direction is better or
    nothing is ranked."""
    rivals: tuple[str, ...]
    """The groups that the leader cannot be told from: its paired interval to each holds zero, or there is
    none. A group without a mean is nobody's rival."""

    @property
    def unvalued(self) -> tuple[str, ...]:
        """The groups without a mean: a run of theirs has no value."""
        return tuple(group for group, cell in self.cells.items() if cell.estimate is None)

    @property
    def best(self) -> str | None:
        """The leader, where it is told from all others; else nobody is marked."""
        return None if self.rivals else self.leader


def column(
    metric: Metric,
    values: Mapping[str, BySeed],
    baselines: Mapping[str, str | None],
    ranked: bool = True,
) -> Column:
    """The column of ``metric``.

    Args:
        metric: its name, unit and direction.
        values: by group, then seed.
        baselines: the group that each group is held against; None: against none.
        ranked: whether differences, verdicts and a leader are worked out.
    """
    known = {group: _whole(by_seed) for group, by_seed in values.items()}
    cells = {}
    for group, by_seed in values.items():
        base = baselines.get(group) if ranked else None
        difference = paired(known[group], known[base]) if base is not None and base in known else None
        mean = estimate(list(known[group].values())) if known[group] else None
        cells[group] = Cell(by_seed, mean, difference, _verdict(difference, metric))
    ranked_groups = {group: by_seed for group, by_seed in known.items() if by_seed} if ranked else {}
    leader = _leader(metric, ranked_groups)
    rivals = () if leader is None else _rivals(metric, ranked_groups, leader)
    return Column(metric, cells, leader, rivals)


def _whole(by_seed: BySeed) -> dict[int, float]:
    """The values by seed; none where one is missing: the others would flatter the group."""
    found = {seed: value for seed, value in sorted(by_seed.items()) if value is not None}
    return found if len(found) == len(by_seed) else {}


def _verdict(difference: Estimate | None, metric: Metric) -> str:
    if difference is None:
        return ""
    if metric.higher_is_better is None:
        return EITHER if difference.sign == 0 and difference.half and not difference.without_spread else ""
    if difference.sign == 0:
        return EITHER
    return BETTER if (difference.sign > 0) == metric.higher_is_better else WORSE


def _leader(metric: Metric, known: Mapping[str, Mapping[int, float]]) -> str | None:
    """The group that is ahead of most others, each pair over common seeds; of two the one of better mean.

    With the same seeds everywhere that is the best mean; else a mean may be best by its seeds alone.
    None where neither direction is better, or among fewer than two groups.
    """
    if metric.higher_is_better is None or len(known) < 2:
        return None
    sign = 1 if metric.higher_is_better else -1

    def place(group: str) -> tuple[int, float]:
        ahead = sum(sign * _gap(known[group], known[other]) > 0 for other in known if other != group)
        return ahead, sign * estimate(list(known[group].values())).mean

    return max(known, key=place)


def _gap(values: Mapping[int, float], others: Mapping[int, float]) -> float:
    """The sum of the differences over common seeds: 0 without any."""
    return math.fsum(value - others[seed] for seed, value in values.items() if seed in others)


def _rivals(metric: Metric, known: Mapping[str, Mapping[int, float]], leader: str) -> tuple[str, ...]:
    """The groups that the leader cannot be told from over common seeds."""
    return tuple(
        group
        for group, values in known.items()
        if group != leader and _verdict(paired(known[leader], values), metric) != BETTER
    )
