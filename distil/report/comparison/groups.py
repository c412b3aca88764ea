"""Runs in groups by what was swept, seeds folded, and which group each is held against."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distil.report.comparison.keys import Config, same
from distil.report.comparison.runs import asked_order, seed_of
from distil.report.run_directory import RunRecord
from distil.types import InputError

DEFAULTS = {"method.name": "sft", "peft.name": "none"}
"""What a comparison is held against: no teacher, and all of the student trained."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    label: str
    choices: Mapping[str, Any]
    """Value by swept key."""
    method: str
    runs: tuple[RunRecord, ...]
    """In the order of their seeds, one a seed."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(map(seed_of, self.runs))


def groups_of(
    runs: Sequence[RunRecord], configs: Sequence[Config], labels: Sequence[str], swept: Sequence[str]
) -> tuple[Group, ...]:
    """Runs by group, in natural order of the swept values; of one group in the order of their seeds."""
    config_by_label = dict(zip(labels, configs, strict=True))
    groups = [
        Group(
            name,
            {key: config[key] for key in swept if key in config},
            str(config.get("method.name")),
            tuple(
                sorted((run for run, label in zip(runs, labels, strict=True) if label == name), key=seed_of)
            ),
        )
        for name, config in config_by_label.items()
    ]
    return tuple(sorted(groups, key=lambda group: [_natural(group.choices.get(key)) for key in swept]))


def _natural(value: Any) -> tuple[int, float, list[tuple[int, float, str]]]:
    """Numbers by size before texts; numbers inside texts by size too."""
    if value is None or isinstance(value, (bool, int, float)):
        return (0, float(value or 0), [])
    parts = re.findall(r"\d+|\D+", value if isinstance(value, str) else same(value))
    return (1, 0.0, [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in parts])


def with_baselines(
    groups: tuple[Group, ...], swept: Sequence[str], asked: str | None
) -> tuple[tuple[Group, ...], dict[str, str | None]]:
    """The groups with the baselines first, and the baseline of each (``asked``, else as in ``_usual``).

    Where several groups are baselines, each other group is held against the one with the same other choices.
    """
    bases = _usual(groups, swept) if asked is None else _named(groups, asked)
    names = {group.label for group in bases}
    ordered = (*bases, *(group for group in groups if group.label not in names))
    return ordered, {
        group.label: None if group.label in names else _nearest(group, bases) for group in ordered
    }


def _usual(groups: Sequence[Group], swept: Sequence[str]) -> Sequence[Group]:
    """Where methods were swept ``sft``, where adapters were ``none``, where both were the group of both.

    Of a sweep that has no such group: ``sft`` or ``none`` where either is there; else the first of the sweep,
    or what ran first.
    """
    keys = [key for key in DEFAULTS if key in swept]
    for wanted in (keys, *([key] for key in keys)):
        found = [g for g in groups if wanted and all(g.choices.get(key) == DEFAULTS[key] for key in wanted)]
        if found:
            return found
    order = asked_order([run for group in groups for run in group.runs])
    return [min(groups, key=lambda group: min(order.get(run.path, len(order)) for run in group.runs))]


def _named(groups: Sequence[Group], asked: str) -> Sequence[Group]:
    """The group of that name; else those of that method or adapter. Raises InputError where it picks none."""
    if exact := [
        group for group in groups if asked == group.label or (len(groups) == 1 and asked == group.method)
    ]:
        return exact
    for key in DEFAULTS:
        found = [group for group in groups if group.choices.get(key) == asked]
        if found:
            return found
    known = ", ".join(group.label for group in groups)
    raise InputError(f"baseline={asked}: no such method, adapter or group among {known}.")


def _nearest(group: Group, bases: Sequence[Group]) -> str | None:
    """The only baseline, or that with the most choices in common; None where two have as many."""
    shared = {
        base.label: sum(same(base.choices.get(key)) == same(value) for key, value in group.choices.items())
        for base in bases
    }
    most = max(shared.values())
    best = [name for name, count in shared.items() if count == most]
    return best[0] if len(best) == 1 else None
