"""What a reader of a comparison must know beside its numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from distil.report.comparison.differences import CLOSE
from distil.report.comparison.runs import metrics_of, score_of, seed_of
from distil.report.run_directory import RunRecord, Scores
from distil.report.seal import in_few_lines
from distil.report.words import number_of

if TYPE_CHECKING:
    from distil.report.comparison.groups import Group
    from distil.report.comparison.table import Column

MOST = 8
"""Notes of single runs that are said; their reports hold all."""
LISTED = 4
"""Metrics and groups that are named; of more, how many there are."""
NUMBER = re.compile(r"-?\d[\d.,]*(e[-+]?\d+)?")


def notes(
    groups: Sequence[Group],
    baselines: Mapping[str, str | None],
    columns: Sequence[Column],
    validation: Sequence[Column],
    before: Scores,
    left_out: int,
    ranked: bool,
) -> list[str]:
    """All of them.

    Args:
        groups: that are compared, of ``baselines`` and ``columns``.
        validation: the columns of the validation rows at the end of the runs; none where they are not known.
        before: scores of the untouched student, where all runs began from the same.
        left_out: how many runs are not compared for what is wrong with them.
        ranked: whether anything is.
    """
    runs = [run for group in groups for run in group.runs]
    said = ["One group only: there is nothing to hold it against."] if len(groups) == 1 else []
    if len(groups) > 1 and ranked:
        said += _seeds(groups)
    said += _setbacks(groups, columns, before)
    said += _without_spread(groups, baselines, columns)
    said += _otherwise(columns, validation)
    if left_out:
        which = "1 run is" if left_out == 1 else f"{left_out} runs are"
        said.append(f"{which} left out: a mean of those that ended may flatter.")
    return [*said, *_flaws(runs), *_of_runs(groups)]


def _seeds(groups: Sequence[Group]) -> Iterator[str]:
    seeds = {group.seeds for group in groups}
    if all(len(group.runs) == 1 for group in groups):
        yield "One seed a group: no interval, so nothing can be told apart. Run more: seed=0,1,2."
    elif max(map(len, seeds)) == 2:
        yield "Two seeds a group: intervals are wide; a third makes them 3.6 times as narrow."
    if len(seeds) > 1:
        told = "; ".join(f"{group.label}: {', '.join(map(str, group.seeds))}" for group in groups)
        yield f"The groups do not have the same seeds ({told}). Differences are over common seeds."


def _setbacks(groups: Sequence[Group], columns: Sequence[Column], before: Scores) -> Iterator[str]:
    """Whom training made worse, and in what: the best of such groups is no gain."""
    found: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        worse = tuple(c.metric.name for c in columns if _fell_back(c, group.label, before))
        if worse:
            found.setdefault(worse, []).append(group.label)
    for names, labels in found.items():
        seeds = ", in every seed" if any(len(group.runs) > 1 for group in groups) else ""
        yield f"At the end worse than the untouched student{seeds}: {_some(labels)}, in {_some(names)}."


def _fell_back(column: Column, group: str, before: Scores) -> bool:
    """Whether every run of ``group`` scored worse than the student before, by more than rounding."""
    was, higher = before.get(column.metric.name), column.metric.higher_is_better
    after = list(column.cells[group].by_seed.values())
    if was is None or higher is None or None in after:
        return False
    sign = 1 if higher else -1
    return all(value is not None and sign * (was - value) > CLOSE * abs(was) for value in after)


def _some(names: Sequence[str]) -> str:
    """Those names, the last of many as a number."""
    if len(names) <= LISTED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:LISTED])} and {len(names) - LISTED} more"


def _without_spread(
    groups: Sequence[Group], baselines: Mapping[str, str | None], columns: Sequence[Column]
) -> Iterator[str]:
    """Where all seeds came to the same: that is no certainty, and no interval is made of it."""
    same = {group.label: _is_one_run(group, columns) for group in groups}
    for group in groups:
        if same[group.label]:
            seeds = ", ".join(map(str, group.seeds))
            yield (
                f"{group.label}: seeds {seeds} have the same scores to the last digit. Where nothing in a "
                "run hangs on its seed, several say no more than one."
            )
    for group in groups:
        base = baselines.get(group.label)
        if base is None or (same[group.label] and same[base]):
            continue
        alike = [c.metric.name for c in columns if _one_difference(c, group.label)]
        if alike:
            yield (
                f"{group.label} against {base}: the difference in {_some(alike)} is the same in all seeds. "
                "Without a spread there is no interval, so it is not separable, however large; on few rows "
                "scores have few values."
            )


def _otherwise(columns: Sequence[Column], validation: Sequence[Column]) -> Iterator[str]:
    """A note on each metric in which other rows call another group best."""
    elsewhere = {column.metric.name: column.best for column in validation}
    for column in columns:
        other = elsewhere.get(column.metric.name)
        if column.best is not None and other is not None and other != column.best:
            yield (
                f"{column.best} is best in {column.metric.name} on the test rows, {other} on the validation "
                "rows: which is better may hang on the rows. More of them tell: data.test_file, or a larger "
                "data.validation_fraction."
            )


def _is_one_run(group: Group, columns: Sequence[Column]) -> bool:
    """Whether the runs of several seeds cannot be told from one: by any score, of which there is one."""
    scores = [[v for v in c.cells[group.label].by_seed.values() if v is not None] for c in columns]
    known = [values for values in scores if values]
    return len(group.runs) > 1 and bool(known) and all(len(set(values)) == 1 for values in known)


def _one_difference(column: Column, group: str) -> bool:
    difference = column.cells[group].difference
    return (
        column.metric.higher_is_better is not None
        and difference is not None
        and difference.without_spread
        and difference.mean != 0
    )


def _flaws(runs: Sequence[RunRecord]) -> Iterator[str]:
    """What lacks a number, cannot be read, or is not as its run left it."""
    valued = [name for name in metrics_of(runs) if any(score_of(run, name) is not None for run in runs)]
    for run in runs:
        scored = run.results.after if run.results else {}
        name = run.path.resolve().name
        if lacking := [each for each in valued if each in scored and score_of(run, each) is None]:
            yield f"{name}: no finite value of {', '.join(lacking)}."
        for problem in (*run.problems, *in_few_lines(run.damaged)):
            yield f"{name}: {problem}"


def _of_runs(groups: Sequence[Group]) -> Iterator[str]:
    """The runs' own notes: once what all of them say, and of a group once what differs in numbers alone."""
    runs = [(group.label, run, run.results.notes) for group in groups for run in group.runs if run.results]
    times = Counter(note for *_, own in runs for note in set(own))
    shared = {note for note, count in times.items() if count == len(runs)}
    yield from dict.fromkeys(note for *_, own in runs for note in own if note in shared)
    alike: dict[tuple[str, str], list[str]] = {}
    for label, run, own in runs:
        for note in dict.fromkeys(own):
            if note not in shared:
                alike.setdefault((label, NUMBER.sub("#", note)), []).append(f"seed {seed_of(run)}: {note}")
    for (label, _), told in list(alike.items())[:MOST]:
        seed, _, note = told[0].partition(": ")
        more = f" and {number_of(len(told) - 1, 'more seed')}" if len(told) > 1 else ""
        yield f"{label}, {seed}{more}: {note}"
    if len(alike) > MOST:
        yield f"{number_of(len(alike) - MOST, 'more note')} of single runs: their reports have them."
