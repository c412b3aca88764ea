"""What a sweep is going to do, known and checked before its first job starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from distil.config.schema import ExperimentConfig
from distil.effect import leaves
from distil.preflight import locate
from distil.run_files import COST, status_of
from distil.sweeps.record import DONE, Job, shared
from distil.system.files import read_json
from distil.types import DistilError, InputError

MOST = 10
"""Reasons that are told; the jobs with others are counted."""
NAMED = 4
"""Jobs of one reason that are named; the rest are counted."""
DRAWN = ("data.split_seed", "data.validation_fraction")
"""Keys that say which rows are set aside for the test, where no file of its own says so."""
EVALUATED = ("data.test_file", "data.max_eval_rows", "data.score", "eval.generation_rows")
"""Keys without which runs are evaluated on other rows, or on other parts of them."""


def plan(jobs: Sequence[tuple[list[str], ExperimentConfig | InputError]], folder: Path) -> list[Job]:
    """The jobs of a sweep in ``folder``: where each runs, which are done, which are the same run.

    Args:
        jobs: overrides of each job with its config, or with what is wrong with it.
        folder: where ``sweep.json`` will lie.

    Raises InputError where any job cannot run: then none is started.
    """
    planned: list[Job] = []
    first: dict[Path, int] = {}
    refused: list[tuple[int, Job, InputError]] = []
    common = shared([overrides for overrides, _ in jobs])
    for number, (overrides, config) in enumerate(jobs, 1):
        own = [word for word in overrides if word not in common]
        job = Job(overrides, " ".join(own or common) or "the defaults")
        planned.append(job)
        try:
            if isinstance(config, InputError):
                raise config
            _, run = locate(config)
        except InputError as error:
            refused.append((number, job, error))
            continue
        job.run = os.path.relpath(run, folder)
        if (twin := first.setdefault(run, number)) != number:
            job.same_as = twin
        elif status_of(run) == DONE:
            job.status, job.before, job.seconds = DONE, True, _seconds(run)
    if refused:
        raise InputError(_refusal(refused, len(jobs)))
    return planned


def not_ranked(configs: Sequence[ExperimentConfig]) -> list[str]:
    """A line on the keys that may keep the jobs from being ranked: said now, not at the end."""
    values = [leaves(asdict(config)) for config in configs]
    drawn = DRAWN if any(each.get("data.test_file", "elsewhere") is None for each in values) else ()
    differ = [key for key in (*EVALUATED, *drawn) if len({str(each.get(key)) for each in values}) > 1]
    if not differ:
        return []
    way = " data.test_file=FILE gives all of them one test." if set(differ) & set(drawn) else ""
    return [f"{' and '.join(differ)}: jobs that are evaluated on different rows are not ranked.{way}"]


def check_left(
    jobs: Sequence[Job], configs: Sequence[ExperimentConfig], check: Callable[[ExperimentConfig], object]
) -> None:
    """Raise InputError where ``check`` raises one of the config of a job that is left: none is started."""
    refused: list[tuple[int, Job, InputError]] = []
    for number, (job, config) in enumerate(zip(jobs, configs, strict=True), 1):
        if job.same_as is None and job.status != DONE:
            try:
                check(config)
            except InputError as error:
                refused.append((number, job, error))
    if refused:
        raise InputError(_refusal(refused, len(jobs)))


def _refusal(refused: Sequence[tuple[int, Job, InputError]], total: int) -> str:
    """Why no job is started: one line where the reason is one."""
    reasons = list(dict.fromkeys(str(error) for _, _, error in refused))
    if len(reasons) == 1 and len(refused) == total:
        return f"{reasons[0]} (All {total} jobs: none was started.)" if total > 1 else reasons[0]
    if len(refused) == 1:
        number, job, error = refused[0]
        return f"job {number} of {total} ({job.label}), so none was started: {error}"
    lines = _reasons([(number, job, str(error)) for number, job, error in refused])
    return "\n".join([f"{len(refused)} of {total} jobs cannot run, so none was started:", *lines])


def _reasons(jobs: Sequence[tuple[int, Job, str]]) -> list[str]:
    """Each reason once, with the jobs that have it (number, job, reason); jobs beyond some are counted."""
    by_reason: dict[str, list[tuple[int, Job]]] = {}
    for number, job, reason in jobs:
        by_reason.setdefault(reason, []).append((number, job))
    lines = []
    for reason, those in list(by_reason.items())[:MOST]:
        named = ", ".join(f"{number} ({job.label})" for number, job in those[:NAMED])
        more = f" and {len(those) - NAMED} more" if len(those) > NAMED else ""
        lines.append(f"  job{'s' if len(those) > 1 else ''} {named}{more}: {reason}")
    if beyond := sum(len(those) for those in list(by_reason.values())[MOST:]):
        lines.append(f"  … and {beyond} more")
    return lines


def opening(jobs: Sequence[Job], folder: Path) -> list[str]:
    """What is said before the first job: how many there are, and which are one run."""
    own = [job for job in jobs if job.same_as is None]
    done = sum(job.before for job in own)
    begun = sum(not job.before and job.run is not None and (folder / job.run).exists() for job in own)
    fresh = len(own) - done - begun
    counts = [(done, "done before"), (begun, "begun before"), (fresh, "new")]
    told = ", ".join(f"{count} {what}" for count, what in counts if count)
    count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    lines = [f"Sweep of {count} in {folder}: {told}."]
    for number, job in enumerate(jobs, 1):
        if job.same_as is not None:
            twin = jobs[job.same_as - 1]
            which = "" if job.overrides == twin.overrides else f" ({job.label})"
            lines.append(f"Job {number}{which} is the same run as job {job.same_as}: it runs once.")
    return lines


def ending(jobs: Sequence[Job], command: str) -> DistilError | None:
    """What is wrong at the end of a sweep, as the error to raise; None where all jobs are done."""
    own = [(number, job) for number, job in enumerate(jobs, 1) if job.same_as is None]
    failed = [(number, job) for number, job in own if job.status != DONE]
    if not failed:
        return None
    lines = _reasons([(number, job, job.reason or job.status) for number, job in failed])
    return DistilError(
        "\n".join(
            [
                f"{len(failed)} of {len(own)} jobs failed:",
                *lines,
                f"The same command tries them again, and no other:\n  {command}",
            ]
        )
    )


class Left(NamedTuple):
    """What is left of a sweep."""

    seconds: float
    untimed: int
    """How many jobs come on top, of which nothing is known yet."""


def time_left(jobs: Sequence[Job], elapsed: float, unseen: int = 0) -> Left | None:
    """What is left of the sweep, from what all of its jobs took that are done; None where nothing is known.

    A job is taken to need what those did that differ from it in the seed alone; where none of these is done
    yet, what those of its method, model and adapter did, else those of its method and model. Of another
    method nothing is known until one of its jobs is done: one may take ten times another's time. Jobs that
    ran at the same time are seen in the ratio of their seconds to ``elapsed``.

    Args:
        jobs: those known so far.
        elapsed: seconds since the sweep began.
        unseen: how many will follow them; they are taken to be a mixture of those done.
    """
    own = [job for job in jobs if job.same_as is None]
    known: dict[str, list[float]] = {}
    done = [job for job in own if job.status == DONE and job.seconds is not None]
    for job in done:
        for like in _likenesses(job):
            known.setdefault(like, []).append(job.seconds or 0.0)
    needs = [
        next((_mean(known[like]) for like in _likenesses(job) if like in known), None)
        for job in own
        if not job.settled
    ]
    if done:
        needs += [_mean([job.seconds or 0.0 for job in done])] * unseen
    work = sum(need for need in needs if need is not None)
    untimed = needs.count(None)
    if not done or (not work and untimed):
        return None
    busy = sum(job.seconds or 0 for job in own if job.settled and not job.before)
    return Left(work * min(1.0, elapsed / busy) if busy else work, untimed)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _likenesses(job: Job) -> list[str]:
    """What jobs have in common that cost alike, from much to little: all but the seed; method, model and
    adapter; method and model.

    Overrides tell apart what the name of the run does not: a number of steps, a longer rollout.
    """
    words = " ".join(word for word in job.overrides if not word.startswith("seed="))
    method_and_model = "-".join(job.kind.split("-")[:2])
    return [f"{job.kind} {words}", *([job.kind, method_and_model] if job.kind else [])]


def _seconds(run: Path) -> float | None:
    """What a run that is done took."""
    try:
        return float(read_json(run / COST)["seconds"]["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
