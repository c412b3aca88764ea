"""Numbers of a comparison in words: what the terminal, the page and the Markdown all say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from distil.report import words
from distil.report.comparison.budget import BESIDE, EqualBudget, Held
from distil.report.comparison.compare import Comparison
from distil.report.comparison.statistics import Estimate
from distil.report.comparison.table import BETTER, EITHER, WORSE, Cell, Column
from distil.report.run_directory import Metric
from distil.system.units import duration, human_bytes

MARK = "★"
MOST_DIGITS = 7
LISTED = 4
"""Metrics that tell nothing apart and are still named."""
COST_NAMES = {
    "train_seconds": "training",
    "total_seconds": "in all",
    "tokens": "tokens",
    "sampled_tokens": "sampled tokens",
    "peak_memory": "peak memory",
    "trainable_parameters": "trainable",
    "student_size": "on disk",
}


def middle_cut(name: str, longest: int) -> str:
    """``name``, its middle left out where it has more than ``longest`` letters: names of one sweep differ at
    their end."""
    if len(name) <= longest:
        return name
    return f"{name[: longest // 3]}…{name[-(longest - longest // 3 - 1) :]}"


def title(column: Column) -> str:
    """``nll ↓``."""
    name = COST_NAMES.get(column.metric.name, column.metric.name)
    return f"{name} {words.arrow(column.metric)}".rstrip()


def unit(column: Column) -> str:
    """The unit where the numbers do not carry it."""
    return "" if column.metric.unit in ("s", "bytes") else column.metric.unit


def amount(value: float, metric: Metric, digits: int | None = None) -> str:
    """``value`` in the metric's own format, or with ``digits`` decimals where that is a fixed-point one."""
    if metric.unit == "s" and metric.format == ".0f":
        if abs(value) < 99.5:
            return f"{value:.{min(2, digits or 0) or int(abs(value) < 9.95)}f} s"
        return duration(value) if value >= 0 else f"-{duration(-value)}"
    if metric.unit == "bytes":
        return human_bytes(value) if value >= 0 else f"-{human_bytes(-value)}"
    if metric.name in ("trainable_parameters", "tokens", "sampled_tokens"):
        return words.parameters(value) if value >= 0 else f"-{words.parameters(-value)}"
    fixed = re.fullmatch(r"\.(\d+)f", metric.format)
    if fixed and abs(value) < words.HUGE and digits is not None:
        return f"{value:.{max(int(fixed[1]), digits)}f}"
    return words.score(value, metric)


def spread(estimate: Estimate, metric: Metric, signed: bool = False) -> tuple[str, str]:
    """The mean, and ``± half`` (empty without a spread), with as many decimals as two digits of half need."""
    half = None if estimate.without_spread else estimate.half  # what floats leave over is no width
    digits = None
    if half is not None and half > 0:
        digits = min(MOST_DIGITS, max(0, 1 - math.floor(math.log10(half))))
    mean = amount(estimate.mean, metric, digits)
    if signed and estimate.mean > 0:
        mean = f"+{mean.strip().removeprefix('+')}"
    if signed:
        mean = mean.replace("%", " pp")
    if not any(digit in mean for digit in "123456789"):
        mean = mean.lstrip("-+")
    return mean.replace("-", "−"), "" if not half else f"± {amount(half, metric, digits)}".replace("%", "")


def middle(cell: Cell, column: Column) -> str:
    """A group's mean, or how many of its runs have no value."""
    if cell.estimate is None:
        lacking = sum(value is None for value in cell.by_seed.values())
        return (
            words.NOTHING if lacking == len(cell.by_seed) else f"{words.NOTHING} ({lacking} without a value)"
        )
    return spread(cell.estimate, column.metric)[0]


def half(cell: Cell, column: Column) -> str:
    """``± 0.004``; empty where there is no spread."""
    return "" if cell.estimate is None else spread(cell.estimate, column.metric)[1]


def mean(cell: Cell, column: Column) -> str:
    """``0.300 ± 0.004``."""
    return f"{middle(cell, column)} {half(cell, column)}".rstrip()


def difference(cell: Cell, column: Column) -> str:
    """``−0.107 ± 0.004``; empty for the baseline, and where neither direction of a cost is better."""
    if cell.difference is None or (column.metric.higher_is_better is None and not cell.difference.mean):
        return ""
    return " ".join(filter(None, spread(cell.difference, column.metric, signed=True)))


def heading(comparison: Comparison) -> str:
    """``12 runs: 4 groups by method, seeds 0, 1, 2``."""
    seeds = sorted({seed for group in comparison.groups for seed in group.seeds})
    told = ", ".join(map(str, seeds)) if len(seeds) <= 6 else f"{len(seeds)} of them"
    runs = words.number_of(comparison.runs, "run")
    by = ", ".join(key.removesuffix(".name") for key in comparison.swept)
    groups = f"{len(comparison.groups)} groups by {by}" if by else "one group"
    return f"{runs}: {groups}; seed{'s' if len(seeds) != 1 else ''} {told}"


def evaluated_line(comparison: Comparison) -> str:
    """On which rows all runs were evaluated, so far as they have it in common, and what few rows mean."""
    told = [run.results.evaluation for group in comparison.groups for run in group.runs if run.results]
    every = [words.evaluated_parts(evaluation) for evaluation in told]
    parts = list(takewhile(lambda part: all(part in other for other in every), every[0]))
    few = list(dict.fromkeys(filter(None, map(words.few_rows, told))))
    several = any(len(group.runs) > 1 for group in comparison.groups)
    beyond = " The intervals over seeds do not include that." if few and several else ""
    return words.told_of_rows(parts, " ".join(few) + beyond)


def held_line(comparison: Comparison) -> str:
    """Which budget was held equal, and how far the others are apart."""
    equal = [each.kind for each in comparison.held if each.equal and each.means]
    apart = [each for each in comparison.held if each.equal is False]
    said = [f"Held equal: {' and '.join(equal) if equal else 'neither steps, tokens nor seconds'}."]
    said += [f"Not equal: {_apart(each)}." for each in apart]
    if unknown := [each.kind for each in comparison.held if each.equal is None]:
        said.append(f"Not recorded by all runs: {', '.join(unknown)}.")
    return " ".join(said) if comparison.runs > 1 else ""


def cost_line(comparison: Comparison) -> str:
    """What makes the times of whole runs unequal: some evaluated teacher and untouched student, some not."""
    costs = [run.cost or {} for group in comparison.groups for run in group.runs]
    took = sum(bool(words.taken_over(cost)) for cost in costs)
    if took in (0, len(costs)):
        return ""
    return (
        f"In all: {took} of {len(costs)} runs took over scores of teacher or untouched student that another "
        "had found, the others evaluated them; training is free of that."
    )


def _apart(each: Held) -> str:
    if len(each.means) < 2:
        return f"{each.kind} (between seeds)"
    low, high = min(each.means, key=each.means.__getitem__), max(each.means, key=each.means.__getitem__)
    ratio = each.means[high] / each.means[low] if each.means[low] else math.inf
    if ratio < 1.005:
        return f"{each.kind} (between seeds)"
    lowest, highest = (_spent(each.means[who], each.kind) for who in (low, high))
    return f"{each.kind} (from {low} {lowest} to {high} {highest}, {ratio:.{2 if ratio >= 1.1 else 3}g} ×)"


def _spent(value: float, kind: str) -> str:
    return duration(value) if kind == "seconds" else f"{value:,.0f}"


def asked_budget(comparison: Comparison) -> str:
    """What the first table shows where an equal budget was asked for; else empty."""
    if comparison.budget is None:
        return ""
    if (table := comparison.budgets.get(comparison.budget)) is not None:
        return budget_line(table)
    return (
        f"No validation curve that all runs have can be read at equal {comparison.budget}: scores at the end."
    )


def budget_line(table: EqualBudget) -> str:
    """What the table of an equal budget shows."""
    rows = f"{table.rows:,} validation rows" if table.rows else "the validation rows"
    told = f"On {rows}, at {_spent(table.amount, table.kind)}"
    told += {
        "steps": " step" if table.amount == 1 else " steps",
        "tokens": " tokens",
        "seconds": " of training",
    }[table.kind]
    told += f" (within {BESIDE[table.kind]:.0%})" if BESIDE[table.kind] else ""
    early = (
        " Runs that went on were read on the way, before their learning rate had come down: a run planned for"
        " this budget would do better."
    )
    unread = f" First evaluated later than that: {', '.join(table.unread)}." if table.unread else ""
    lost = f" No finite number there (diverged): {', '.join(table.lost)}." if table.lost else ""
    few = words.few_rows({"rows": table.rows})
    said = f"{told}, the most that every run reached.{early if table.early else ''}{unread}{lost}"
    return f"{said} {few}".rstrip()


def verdict_parts(
    comparison: Comparison, columns: Sequence[Column]
) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """(group, baseline, [(verdict, in what of ``columns``)]) of each group that is held against another."""
    for group in comparison.groups:
        base = comparison.baselines.get(group.label)
        if base is None or comparison.unranked:
            continue
        told: dict[str, list[str]] = {BETTER: [], WORSE: [], EITHER: []}
        for column in columns:
            verdict = column.cells[group.label].verdict
            if verdict and column.metric.higher_is_better is not None:
                told[verdict].append(column.metric.name)
        if parts := [(verdict, names) for verdict, names in told.items() if names]:
            yield group.label, base, [(verdict, _listed(verdict, names, parts)) for verdict, names in parts]


def _listed(verdict: str, names: Sequence[str], parts: Sequence[object]) -> str:
    """The metrics of a verdict; of many that say nothing only how many they are."""
    if verdict != EITHER or len(names) <= LISTED:
        return ", ".join(names)
    return f"the other {len(names)} metrics" if len(parts) > 1 else f"any of {len(names)} metrics"


def verdicts(comparison: Comparison) -> Iterator[str]:
    """One sentence a group: in which of the columns that were asked for it is better, worse, or neither."""
    for group, base, parts in verdict_parts(comparison, columns_of(comparison)):
        told = (f"{verdict} in {what}" for verdict, what in parts)
        yield f"{group} against {base}: {'; '.join(told)}."


def explanation(comparison: Comparison) -> str:
    """How to read the table."""
    if comparison.unranked:
        return f"Mean ± 95 % interval over seeds. Nothing is ranked.{_floor(comparison)}"
    bases = list(dict.fromkeys(filter(None, comparison.baselines.values())))
    base = f"{bases[0]}, the baseline," if len(bases) == 1 else "the baseline"
    return (
        "↑ higher is better, ↓ lower is better. Mean ± 95 % interval of Student's t over seeds (none of one"
        f" seed, nor where all agree); below it the paired difference from {base} over common seeds."
        f" {MARK} best: its paired interval to every other group leaves zero out. Intervals are over seeds,"
        f" on one set of rows, not corrected for the number of columns.{_floor(comparison)}"
    )


def _floor(comparison: Comparison) -> str:
    return f" {words.FLOOR.capitalize()}." if "floor" in comparison.references else ""


def columns_of(comparison: Comparison) -> tuple[Column, ...]:
    """The columns of quality that were asked for: at the end of the runs, or at an equal budget."""
    if comparison.budget is not None and comparison.budget in comparison.budgets:
        return comparison.budgets[comparison.budget].columns
    return comparison.columns


def best(column: Column) -> str:
    """The best group in one word of a table; empty where none is meant."""
    return "" if column.leader is None else column.best or EITHER


def best_line(column: Column) -> str:
    """Who is best; else who leads or ties for the lead, and whom the leader cannot be told from."""
    if column.leader is None:
        return ""
    lacking = f"; no value: {_some(column.unvalued)}" if column.unvalued else ""
    if column.best is not None:
        return f"best: {column.best}{lacking}"
    if len({cell.estimate.mean for cell in column.cells.values() if cell.estimate is not None}) == 1:
        return f"no difference{lacking}"
    tied = [group for group in column.rivals if _ties(column.cells[group], column.cells[column.leader])]
    others = [group for group in column.rivals if group not in tied]
    first = f"{_some([column.leader, *tied])} tie for the lead" if tied else f"{column.leader} leads"
    return f"{first}{f', not separable from {_some(others)}' if others else ''}{lacking}"


def _ties(cell: Cell, leader: Cell) -> bool:
    """Whether both have one mean, of the same seeds."""
    means = [each.estimate.mean for each in (cell, leader) if each.estimate is not None]
    return len(means) == 2 and means[0] == means[1] and cell.by_seed.keys() == leader.by_seed.keys()


def _some(groups: Sequence[str]) -> str:
    return ", ".join(groups[:3]) + (" …" if len(groups) > 3 else "")
