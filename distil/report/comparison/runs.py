"""Which runs are compared: run directories below the given folders, and why each other one is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.report.comparison.statistics import in_reach
from distil.report.run_directory import Metric, RunRecord, mapping, read_run
from distil.run_files import CONFIG, ENVIRONMENT, RESULTS, STATUS
from distil.system.files import read_json
from distil.system.printable import one_line
from distil.types import InputError

SIGNS = (STATUS, RESULTS, ENVIRONMENT)
"""A folder that holds one of these is, or was, a run directory. An exported student holds a config alone."""
NEEDED = (STATUS, CONFIG, RESULTS)
"""Without one of these a run cannot be compared; a hole in another file costs a picture only."""


@dataclass(frozen=True)
class LeftOut:
    """A run directory that is not compared."""

    run: str
    why: str
    """Begins with what its job was asked, where it is one of a sweep: the run's name holds a hash of that."""


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The run directories among ``folders`` and below them, each once, in a stable order.

    Raises InputError for a folder that does not exist or below which there is none.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder. Give run directories, or a folder that holds them.")
        below = list(_walk(folder))
        if not below:
            raise InputError(
                f"{folder} holds no run directory. Give run directories, or a folder that holds them, such as"
                " outputs/<name>; python run.py -m method=sft,kd seed=0,1,2 makes one."
            )
        for run in below:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is, or was, a run directory."""
    return any((folder / sign).is_file() for sign in SIGNS)


def _walk(folder: Path) -> Iterator[Path]:
    """Run directories at or below ``folder``; nothing inside of one, nothing hidden, no link to a folder."""
    for place, folders, files in os.walk(folder):
        if any(sign in files for sign in SIGNS):
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def read_runs(folders: Sequence[Path]) -> tuple[list[RunRecord], list[LeftOut]]:
    """The runs that are done and whole, and what was left out and why, whatever order the folders come in.

    Raises InputError where there is no folder, no run, or none that is done.
    """
    runs, left_out = [], []
    paths = find_runs(folders)
    asked = {folder: _asked_in(folder) for folder in {path.resolve().parent for path in paths}}
    for path in paths:
        try:
            run = read_run(path)
            why = _flaw(run)
        except (InputError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            why = f"cannot be read: {one_line(error)}"
        if why:
            own = path.resolve()
            told = asked[own.parent].get(own.name)
            left_out.append(LeftOut(own.name, f"{told}: {why}" if told else why))
        else:
            runs.append(run)
    if not runs:
        listed = "\n".join(f"  {each.run}: {each.why}" for each in left_out)
        raise InputError(f"No run to compare: of {len(left_out)} none is done and whole.\n{listed}")
    runs.sort(key=lambda run: (run.path.resolve().name, run.finished, run.path.resolve()))
    return runs, sorted(left_out, key=lambda each: (each.run, each.why))


def seed_of(run: RunRecord) -> int:
    """The seed of a run that ``read_runs`` returned."""
    return int(run.config["seed"])


def metrics_of(runs: Sequence[RunRecord]) -> dict[str, Metric]:
    """By name, in the order of the runs' own tables."""
    found: dict[str, Metric] = {}
    for run in runs:
        for metric in run.results.metrics if run.results else ():
            found.setdefault(metric.name, metric)
    return found


def score_of(run: RunRecord, name: str) -> float | None:
    """What the distilled student scored; None: nothing that can be reckoned with."""
    return in_reach(run.results.after.get(name)) if run.results else None


def asked_order(runs: Sequence[RunRecord]) -> dict[Path, int]:
    """The place of each run in the sweep that it is a job of, where its folder says so: ``sweep.json``."""
    order: dict[Path, int] = {}
    for folder in sorted({run.path.resolve().parent for run in runs}):
        places = {str(job.get("run")): place for place, job in enumerate(_jobs_of(folder))}
        for run in runs:
            resolved = run.path.resolve()
            if resolved.parent == folder and resolved.name in places:
                order[run.path] = places[resolved.name]
    return order


def _asked_in(folder: Path) -> dict[str, str]:
    """By run directory of a sweep in ``folder``: the overrides that not all of its jobs have."""
    told = ((str(job.get("run")), job.get("overrides")) for job in _jobs_of(folder))
    return {run: " ".join(map(str, words)) for run, words in told if isinstance(words, list)}


def _jobs_of(folder: Path) -> list[Mapping[str, Any]]:
    """The jobs that ``sweep.json`` of ``folder`` names, in the order that was asked for."""
    try:
        jobs = mapping(read_json(folder / "sweep.json")).get("jobs")
    except (OSError, ValueError):
        return []
    return [mapping(job) for job in jobs] if isinstance(jobs, list) else []


def _flaw(run: RunRecord) -> str:
    """Why ``run`` cannot be compared; empty where it can."""
    if broken := [problem for problem in run.problems if problem.startswith(NEEDED)]:
        return one_line(broken[0])
    lacking = [name for name in NEEDED if not (run.path / name).is_file()]
    if run.status != "done" and STATUS not in lacking:
        return f"{run.state}{f': {one_line(run.reason)}' if run.reason else ''}"
    if lacking:
        return f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing."
    seed = run.config.get("seed")
    if (
        isinstance(seed, bool)
        or not isinstance(seed, int)
        or not mapping(run.config.get("method")).get("name")
    ):
        return "config.yaml says no seed or no method."
    if changed := [line for line in run.damaged if line.startswith(NEEDED)]:
        return f"{one_line(changed[0])}."
    if run.results is None or not run.results.after:
        return "done, but results.json holds no scores of the distilled student."
    if run.results.ruined:
        return "done, but its student is ruined: it gives every token the same probability."
    return ""


def code_of(run: RunRecord) -> str:
    """What tells one state of the code from another: its hash where it was recorded, else the revision."""
    code = run.environment.get("code")
    if code:
        return str(code)
    git = mapping(run.environment.get("git"))
    return f"{git.get('revision') or 'unknown'}{'+' + str(git['dirty']) if git.get('dirty') else ''}"
