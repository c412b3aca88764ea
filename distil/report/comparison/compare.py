"""Run directories in, one comparison out: groups by what was swept, seeds folded, differences said first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from distil.effect import leaves
from distil.report.comparison.budget import KINDS, EqualBudget, Held, equal_budget, held
from distil.report.comparison.costs import COSTS, cost_of
from distil.report.comparison.differences import CLOSE, Difference, differences, evaluated_apart
from distil.report.comparison.groups import Group, groups_of, with_baselines
from distil.report.comparison.keys import configs_of, group_names, same, sort_keys
from distil.report.comparison.notes import notes
from distil.report.comparison.runs import LeftOut, metrics_of, read_runs, score_of, seed_of
from distil.report.comparison.statistics import in_reach
from distil.report.comparison.table import Column, column
from distil.report.run_directory import RunRecord, Scores, mapping
from distil.types import InputError


@dataclass(frozen=True)
class Comparison:
    """What the run directories say together."""

    groups: tuple[Group, ...]
    swept: tuple[str, ...]
    baselines: Mapping[str, str | None]
    """By group: the group that it is held against. None: it is a baseline, or there is none."""
    unranked: tuple[str, ...]
    """Why nothing is ranked; empty where it is."""
    differences: tuple[Difference, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    """The scores of the distilled students, in the order of the runs' own tables."""
    references: Mapping[str, Scores]
    """``teacher``, ``student before``, ``floor``: their scores where they are the same in all runs."""
    costs: tuple[Column, ...]
    held: tuple[Held, ...]
    budgets: Mapping[str, EqualBudget]
    """By ``steps``, ``tokens``, ``seconds``: the validation curves read at an equal budget."""
    budget: str | None
    """The one that was asked for."""

    @property
    def confounds(self) -> tuple[Difference, ...]:
        """What differs though it was not swept, nor belongs to a choice, nor was declared."""
        return tuple(each for each in self.differences if each.kind == "confound")

    @property
    def runs(self) -> int:
        """How many runs are compared."""
        return sum(len(group.runs) for group in self.groups)


def compare(
    folders: Sequence[Path],
    baseline: str | None = None,
    budget: str | None = None,
    force: bool = False,
    declared: Collection[str] = (),
    left_out: Collection[LeftOut] = (),
) -> Comparison:
    """Compare the runs at and below ``folders``.

    Args:
        folders: run directories, or folders that hold them.
        baseline: the group, method or adapter that the others are held against; None: see ``with_baselines``.
        budget: ``steps``, ``tokens`` or ``seconds``: read the curves where all runs have spent the same.
        force: show runs that cannot be ranked side by side, unranked.
        declared: config keys that were tuned for each group by the same search: no confounds.
        left_out: runs that left no directory, so that ``folders`` do not tell of them.

    Raises InputError where there is nothing to compare, for a declared key that no run has, or (without
    ``force``) runs that were evaluated on different rows or share no metric.
    """
    if budget is not None and budget not in KINDS:
        raise InputError(f"budget={budget}: one of {', '.join(KINDS)}.")
    found, unfit = read_runs(folders)
    missing = sorted((*left_out, *unfit), key=lambda each: (each.run, each.why))
    runs, older = _newest(found)
    configs = configs_of(runs)
    _check_declared(declared, runs)
    keys = sort_keys(runs, configs, declared)
    labels = group_names(configs, keys.swept)
    unranked = [*evaluated_apart(runs), *_nothing_in_common(runs)]
    if unranked and not force:
        raise _cannot_be_ranked(unranked)
    groups = groups_of(runs, configs, labels, keys.swept)
    groups, baselines = with_baselines(groups, keys.swept, baseline)
    folded = {group.label: group.runs for group in groups}
    kept = [run for each in folded.values() for run in each]
    held_to = {} if unranked else baselines
    read = [] if unranked else [(kind, equal_budget(folded, baselines, kind)) for kind in KINDS]
    columns = _columns(groups, held_to, not unranked)
    references = _references(kept)
    before = references.get("student before", {})
    steps = dict(read).get("steps")
    validation = () if steps is None or steps.early or _took_best(kept) else steps.columns
    return Comparison(
        groups=groups,
        swept=keys.swept,
        baselines=baselines,
        unranked=tuple(unranked),
        differences=tuple(differences(runs, configs, labels, keys)),
        left_out=(*missing, *older),
        notes=tuple(notes(groups, held_to, columns, validation, before, len(missing), not unranked)),
        columns=columns,
        references=references,
        costs=tuple(_costs(groups, held_to, not unranked)),
        held=held(folded),
        budgets={kind: table for kind, table in read if table is not None and table.compares},
        budget=budget,
    )


def _took_best(runs: Sequence[RunRecord]) -> bool:
    """Whether a run's product may be of an earlier step than its curves end at."""
    return any(mapping(run.config.get("trainer")).get("load_best_model_at_end") for run in runs)


def _cannot_be_ranked(reasons: Sequence[str]) -> InputError:
    lines = ("These runs cannot be ranked:", *(f"  {reason}" for reason in reasons))
    return InputError("\n".join((*lines, "--force shows them side by side, unranked.")))


def _check_declared(declared: Collection[str], runs: Sequence[RunRecord]) -> None:
    """Raise InputError for a key that no run's config has: nothing would be declared by it."""
    known = sorted({key for run in runs for key in leaves(run.config)})
    for key in declared:
        if key not in known:
            near = get_close_matches(key, known, n=1) or [each for each in known if each.endswith(f".{key}")]
            hint = f" Did you mean {near[0]}?" if near else " Their config.yaml shows the keys."
            raise InputError(f"declared={key}: no run has such a key.{hint}")


def _nothing_in_common(runs: Sequence[RunRecord]) -> list[str]:
    scored = [set(run.results.after) for run in runs if run.results]
    if set.intersection(*scored):
        return []
    first, other = next(
        ((a, b) for a in range(len(runs)) for b in range(a) if not scored[a] & scored[b]), (0, len(runs) - 1)
    )
    told = (
        f"{runs[i].path.resolve().name} has {', '.join(sorted(scored[i])) or 'none'}" for i in (other, first)
    )
    return [f"no metric that all of them have: {'; '.join(told)}"]


def _newest(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[LeftOut]]:
    """Of runs with one config the one that ended last, in the order of ``runs``; and the older ones."""
    newest: dict[str, RunRecord] = {}
    older = []
    by_age = sorted(runs, key=lambda run: run.finished)
    for run, config in zip(by_age, map(same, configs_of(by_age)), strict=True):
        if (before := newest.get(config)) is not None:
            why = f"done again: {run.path.resolve().name} is the newer run of the same config."
            older.append(LeftOut(before.path.resolve().name, why))
        newest[config] = run
    kept = {id(run) for run in newest.values()}
    return [run for run in runs if id(run) in kept], older


def _columns(
    groups: Sequence[Group], baselines: Mapping[str, str | None], ranked: bool
) -> tuple[Column, ...]:
    runs = [run for group in groups for run in group.runs]
    return tuple(
        column(metric, _values(groups, partial(score_of, name=name)), baselines, ranked)
        for name, metric in metrics_of(runs).items()
    )


def _values(
    groups: Sequence[Group], read: Callable[[RunRecord], float | None]
) -> dict[str, dict[int, float | None]]:
    return {group.label: {seed_of(run): read(run) for run in group.runs} for group in groups}


def _references(runs: Sequence[RunRecord]) -> dict[str, Scores]:
    """Scores that all runs agree on, of who is not compared."""
    results = [run.results for run in runs if run.results]
    told: dict[str, list[Scores]] = {
        "teacher": [each.teacher or {} for each in results],
        "student before": [each.before for each in results],
        "floor": [each.floor for each in results],
    }
    found: dict[str, Scores] = {}
    for who, scores in told.items():
        agreed = {}
        for name in metrics_of(runs):
            values = {value for each in scores if (value := in_reach(each.get(name))) is not None}
            if values and max(values) - min(values) <= CLOSE * max(map(abs, values)):
                agreed[name] = min(values)
        if agreed:
            found[who] = agreed
    return found


def _costs(groups: Sequence[Group], baselines: Mapping[str, str | None], ranked: bool) -> list[Column]:
    found = []
    for metric, read in COSTS:
        values = _values(groups, partial(cost_of, read=read))
        if any(value is not None for by_seed in values.values() for value in by_seed.values()):
            found.append(column(metric, values, baselines, ranked))
    return found
