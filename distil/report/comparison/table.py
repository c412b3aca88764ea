"""One number over groups and seeds: means, paired differences, and whether a best can be named."""

from __future__ import annotations

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
    """Value less the baseline's, paired over common seeds. None: the baseline itself, or no common seed."""
    verdict: str
    """``better``, ``worse`` or ``not separable`` from the baseline; empty where neither is meant."""


@dataclass(frozen=True)
class Column:
    """One metric, and who is best in it."""

    metric: Metric
    cells: Mapping[str, Cell]
    """By group, in the order of the comparison."""
    leader: str | None
    """The group whose mean is best; None where neither direction is better or nothing is ranked."""
    rivals: tuple[str, ...]
    """The groups that the leader cannot be told from: its paired interval to each holds zero, or there is
    none."""

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
    known = {group: _finite(by_seed) for group, by_seed in values.items()}
    cells = {}
    for group, by_seed in values.items():
        base = baselines.get(group) if ranked else None
        whole = known[group] if len(known[group]) == len(by_seed) else {}
        difference = paired(whole, known[base]) if base is not None and base in known else None
        cells[group] = Cell(
            by_seed,
            estimate(list(whole.values())) if whole else None,
            difference,
            _verdict(difference, metric),
        )
    leader = _leader(metric, cells) if ranked else None
    rivals = tuple(
        group for group in cells if leader not in (None, group) and not _ahead(metric, known, leader, group)
    )
    return Column(metric, cells, leader, rivals)


def _finite(by_seed: BySeed) -> dict[int, float]:
    return {seed: value for seed, value in sorted(by_seed.items()) if value is not None}


def _verdict(difference: Estimate | None, metric: Metric) -> str:
    if difference is None or metric.higher_is_better is None:
        return ""
    if difference.sign == 0:
        return EITHER
    return BETTER if (difference.sign > 0) == metric.higher_is_better else WORSE


def _leader(metric: Metric, cells: Mapping[str, Cell]) -> str | None:
    """The best mean. No leader where neither direction is better, or among fewer than two groups."""
    means = {group: cell.estimate.mean for group, cell in cells.items() if cell.estimate is not None}
    if metric.higher_is_better is None or len(means) < 2:
        return None
    sign = 1 if metric.higher_is_better else -1
    return max(means, key=lambda group: sign * means[group])


def _ahead(metric: Metric, known: Mapping[str, Mapping[int, float]], leader: str | None, rival: str) -> bool:
    """Whether the interval of leader - rival over common seeds lies on the better side of zero."""
    if leader is None:
        return False
    difference = paired(known[leader], known[rival])
    return difference is not None and _verdict(difference, metric) == BETTER
