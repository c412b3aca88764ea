"""What differs between the runs: said before any score, since a confounded comparison compares nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from distil.effect import leaves
from distil.report.comparison.keys import ABSENT, Config, Keys, by_group, same, versions_of
from distil.report.comparison.runs import code_of, seed_of
from distil.report.run_directory import RunRecord, mapping, number

KINDS = {
    "swept": "swept",
    "own": "belongs to the choice",
    "declared": "tuned for each, declared",
    "confound": "CONFOUND",
    "seed": "moves with the seed",
}
CLOSE = 1e-3
"""Relative: scores of one model on the same rows, on two machines, are nearer than this."""
NAMED = 4
"""Groups that are named for each value."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in all runs."""

    key: str
    kind: str
    """One of ``KINDS``."""
    values: dict[str, list[str]]
    """By group: the values in its runs."""

    @property
    def text(self) -> str:
        """``trainer.max_steps: 600 (kd); 800 (sft, gkd)``: groups with one value together, few of many."""
        groups: dict[str, list[str]] = {}
        for group, values in self.values.items():
            groups.setdefault(" or ".join(values), []).append(group)
        told = (
            f"{value} ({', '.join(who[:NAMED])}{_more(len(who) - NAMED)})" for value, who in groups.items()
        )
        return f"{self.key}: {'; '.join(told)}"


def differences(
    runs: Sequence[RunRecord], configs: Sequence[Config], groups: Sequence[str], keys: Keys
) -> list[Difference]:
    """Every difference, confounds first.

    Args:
        runs, configs, groups: the runs, the config of each, the group of each.
        keys: what the differing config keys are.
    """
    by_run = {id(run): config for run, config in zip(runs, configs, strict=True)}

    def of(key: str, kind: str) -> Difference:
        return Difference(key, kind, by_group(runs, groups, lambda run: by_run[id(run)].get(key, ABSENT)))

    return [
        *(of(key, "confound") for key in keys.confounds),
        *_recorded(runs, groups, keys),
        *_starts(runs, groups, _alike(runs, configs, keys), keys),
        *(of(key, "seed") for key in keys.with_seed),
        *(of(key, "declared") for key in keys.declared),
        *(of(key, "own") for key in keys.own),
        *(of(key, "swept") for key in keys.swept),
    ]


def _recorded(runs: Sequence[RunRecord], groups: Sequence[str], keys: Keys) -> list[Difference]:
    """Differences in what the runs recorded beside their config: files, code, packages, machine."""
    readers: dict[str, Callable[[RunRecord], Any]] = {}
    for name in sorted({name for run in runs for name in mapping(run.environment.get("fingerprints"))}):
        # A swept path has other contents: that is what was asked for.
        if not any(_inside(name, key) for key in keys.swept):
            readers[f"contents of {name}"] = partial(_fingerprint, name=name)
    readers["code"] = code_of
    for name in sorted({name for run in runs for name in versions_of(run)}):
        readers[f"version of {name}"] = partial(_version, name=name)
    for name in ("device", "threads", "python"):
        readers[name] = partial(_environment, name=name)
    readers["processes"] = lambda run: run.environment.get("processes", 1)
    return [
        Difference(what, "confound", by_group(runs, groups, read))
        for what, read in readers.items()
        if len({str(read(run)) for run in runs}) > 1
    ]


def _fingerprint(run: RunRecord, name: str) -> str:
    return str(mapping(run.environment.get("fingerprints")).get(name, ABSENT))


def _version(run: RunRecord, name: str) -> str:
    return versions_of(run).get(name, ABSENT)


def _environment(run: RunRecord, name: str) -> Any:
    return run.environment.get(name)


def _inside(name: str, key: str) -> bool:
    """Whether the file behind ``name`` was chosen by the swept ``key``."""
    return f"{name}.".startswith(f"{key}.") or (
        key.endswith(".name") and name.startswith(key.removesuffix("name"))
    )


def _alike(runs: Sequence[RunRecord], configs: Sequence[Config], keys: Keys) -> list[str]:
    """Equal for runs of one seed that were to be scored in one way."""
    ways = [key for key in keys.swept if key.startswith(("data.", "eval."))]
    return [
        same([seed_of(run), *(config.get(key, ABSENT) for key in ways)])
        for run, config in zip(runs, configs, strict=True)
    ]


def _starts(
    runs: Sequence[RunRecord], groups: Sequence[str], alike: Sequence[str], keys: Keys
) -> list[Difference]:
    """Whether teacher and untouched student score alike in all runs that are ``alike``, unless they were
    swept."""
    found = []
    models = any(key.startswith("model.") for key in keys.swept)
    for who, swept in (
        ("teacher", models),
        ("student before", models or any(key.startswith("peft.") for key in keys.swept)),
    ):
        apart = None if swept else _apart(runs, alike, who)
        if apart is not None:
            values = by_group(runs, groups, partial(_score, who=who, metric=apart))
            found.append(Difference(f"{apart} of the {who}", "confound", values))
    return found


def _score(run: RunRecord, who: str, metric: str) -> float | None:
    assert run.results is not None
    scores = run.results.teacher if who == "teacher" else run.results.before
    return number((scores or {}).get(metric))


def _apart(runs: Sequence[RunRecord], alike: Sequence[str], who: str) -> str | None:
    """The first metric in which ``who`` differs between runs that are ``alike``."""
    assert runs[0].results is not None
    for metric in runs[0].results.metrics:
        found: dict[str, list[float]] = {}
        for run, way in zip(runs, alike, strict=True):
            if (value := _score(run, who, metric.name)) is not None:
                found.setdefault(way, []).append(value)
        for values in found.values():
            if max(values) - min(values) > CLOSE * max(map(abs, values)):
                return metric.name
    return None


def evaluated_apart(runs: Sequence[RunRecord]) -> list[str]:
    """How the rows differ that runs were evaluated on; empty where they are the same, as far as is recorded.

    A digest of the rows decides where all runs have one; else their number and that of the scored tokens.
    """
    evaluations = [run.results.evaluation if run.results else {} for run in runs]
    if all(evaluation.get("rows_digest") for evaluation in evaluations):
        by_digest: dict[str, list[RunRecord]] = {}
        for run, evaluation in zip(runs, evaluations, strict=True):
            by_digest.setdefault(str(evaluation["rows_digest"]), []).append(run)
        found = [_other_rows(list(by_digest.values()))] if len(by_digest) > 1 else []
        keys = ["generation_rows"]
    else:
        found, keys = [], ["split", "rows", "scored_tokens", "generation_rows"]
    for key in keys:
        where: dict[str, list[str]] = {}
        for run, evaluation in zip(runs, evaluations, strict=True):
            where.setdefault(str(evaluation.get(key)), []).append(run.path.resolve().name)
        if len(where) > 1:
            said = (f"{value} in {names[0]}{_more(len(names) - 1)}" for value, names in where.items())
            named = f"eval.{key}" if key == "generation_rows" else f"evaluation.{key}"  # a key of the config
            found.append(f"{named}: {'; '.join(said)}")
    return found


def _other_rows(apart: Sequence[Sequence[RunRecord]]) -> str:
    """Which rows each of some groups of runs was evaluated on, why these differ, and what can be done."""
    evaluated = "; ".join(
        f"{_rows_of(runs[0])} in {runs[0].path.resolve().name}{_more(len(runs) - 1)}"
        for runs in apart[:NAMED]
    )
    facts = [_of_data(runs[0]) for runs in apart]
    differ = sorted(
        {key for each in facts for key in each if len({str(fact.get(key)) for fact in facts}) > 1}
    )
    why = f" They differ in {', '.join(differ)}." if differ else ""
    return (
        f"they were evaluated on different rows: {evaluated}{_more(len(apart) - NAMED)}.{why} Run them again "
        "on one set (data.test_file= says which), or evaluate each on it: distil evaluate RUN --data FILE."
    )


def _rows_of(run: RunRecord) -> str:
    """``100 test rows of data.test_file=rows.jsonl``."""
    evaluation = run.results.evaluation if run.results else {}
    data = mapping(run.config.get("data"))
    key = next((key for key in ("test_file", "train_file", "path", "name") if data.get(key)), None)
    source = "" if key is None else f" of data{'' if key == 'name' else f'.{key}'}={data[key]}"
    count = number(evaluation.get("rows"))
    rows = "rows" if count is None else "row" if count == 1 else f"{count:,.0f} rows"
    return f"{'1 ' if rows == 'row' else ''}{rows} ({evaluation.get('split', 'test')}){source}"


def _of_data(run: RunRecord) -> dict[str, Any]:
    """What rows of ids depend on: the keys of ``data``, the contents of its files, and whose ids they are."""
    config = {key: value for key, value in leaves(run.config).items() if key.startswith("data.")}
    printed = mapping(run.environment.get("fingerprints"))
    contents = {f"the contents of {key}": value for key, value in printed.items() if key.startswith("data.")}
    model = mapping(run.config.get("model"))
    read_by = {f"model.{who}.path": mapping(model.get(who)).get("path") for who in ("teacher", "student")}
    return config | contents | read_by


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
