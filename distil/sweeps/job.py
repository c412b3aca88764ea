"""One job of a sweep: it never raises but where it is stopped, says what it came to, leaves no memory."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from distil.config.schema import ExperimentConfig
from distil.config.tuned import Tuned
from distil.experiment import run, tell
from distil.metrics.base import METRICS
from distil.preflight import locate
from distil.report.run_directory import read_run
from distil.report.words import score
from distil.sweeps.plan import time_left
from distil.sweeps.record import DONE, FAILED, INTERRUPTED, RUNNING, Job, SweepRecord
from distil.system.printable import one_line, printable
from distil.system.redact import redact
from distil.system.stopping import asked, check, pass_on
from distil.system.units import duration
from distil.types import DistilError, RunInterrupted

HEADLINE = 4
"""Scores in the line of a job; all of them are in the comparison."""


def run_job(
    record: SweepRecord,
    overrides: Sequence[str],
    config: Callable[[], ExperimentConfig],
    command: str,
    say: Callable[[str], None] | None = None,
    tuned: Sequence[Tuned] = (),
    compared: bool = True,
) -> None:
    """Run the job with ``overrides`` and report it. Raises KeyboardInterrupt where it was stopped.

    Args:
        record: of the sweep.
        overrides: what tells the job from the others.
        config: composes its config; what is wrong with that is a failure of this job alone.
        command: runs this job alone.
        say: takes the lines for the terminal, of jobs side by side; None: this one is alone, and prints them.
        tuned: the files of tuned keys that the config was composed with.
        compared: whether a comparison follows; of the trials of a search, their own lines alone tell.
    """
    check()
    alone = say is None
    say = say or tell
    job, name = _announced(record, list(overrides), say)
    began = time.monotonic()
    try:
        experiment = config()
        if job.run is None:  # of a sweeper that finds its jobs as it goes
            job.run = os.path.relpath(locate(experiment)[1], record.folder)
        folder = run(
            experiment,
            command=command,
            summary=False,
            say=lambda line: say(f"  {line}" if alone else f"  {name}: {line}"),
            tuned=tuned,
            watched=alone,
            compared=compared,
        )
        job.status, job.seconds = DONE, round(time.monotonic() - began, 2)
        scores = headline(folder, experiment.eval.metrics)
        # A search goes by the validation split: its table at the end has other numbers.
        of = " (test rows)" if scores and not compared else ""
        say(f"  {name} done in {duration(job.seconds)}{scores}{of}")
    except (KeyboardInterrupt, RunInterrupted):
        job.status, job.reason = INTERRUPTED, asked() or "Ctrl-C"
        record.report(job)
        pass_on()
        raise KeyboardInterrupt from None
    except (Exception, SystemExit) as error:  # a library that calls exit must not end the other jobs
        known = isinstance(error, DistilError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        job.status, job.reason = FAILED, _one_line(reason)
        job.seconds = round(time.monotonic() - began, 2)
        if not known:
            # Not `say`: it is long. A launcher that takes what jobs print into files keeps it in its logs.
            print(printable(redact(traceback.format_exc())), end="", file=sys.stderr, flush=True)
        say(f"  {name} failed: {job.reason}")
    finally:
        record.report(job)
        free_memory()


def _announced(record: SweepRecord, overrides: list[str], say: Callable[[str], None]) -> tuple[Job, str]:
    """The job with ``overrides``, said and reported to run, and what lines about it call it."""
    jobs = record.jobs()
    number = next((i for i, job in enumerate(jobs, 1) if job.overrides == overrides), None)
    job = jobs[number - 1] if number is not None else Job(overrides, " ".join(overrides))
    name = f"job {number or len(jobs) + 1}"
    of = _of_how_many(record, jobs) if number is not None else ""
    say(f"{name}{of}: {job.label}")
    job.status, job.reason = RUNNING, None
    record.report(job)
    return job, name


def headline(folder: Path, metrics: Sequence[str]) -> str:
    """What the distilled student in ``folder`` scored: the first value of each of ``metrics``."""
    results = read_run(folder).results
    described = {metric.name: metric for metric in results.metrics} if results is not None else {}
    told = []
    for name in metrics:
        value = next((each for each in METRICS.get(name).factory.values if each in described), None)
        if value is not None and results is not None:
            told.append(f"{value} {score(results.after.get(value), described[value])}")
    return f": {', '.join(told[:HEADLINE])}" if told else ""


def free_memory() -> None:
    """Give back what the last job held: models in reference cycles, caches of devices, free heap."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


def _of_how_many(record: SweepRecord, jobs: Sequence[Job]) -> str:
    """`` of 12, about 3 min left``: as far as it is known."""
    total = record.total() or len(jobs)
    left = time_left(jobs, record.elapsed(), max(0, total - len(jobs)))
    if left is None:
        return f" of {total}"
    if not left.untimed:
        return f" of {total}, about {duration(left.seconds)} left"
    untimed = f"{left.untimed} of a kind that was not timed yet"
    return f" of {total}, about {duration(left.seconds)} left, not counting {untimed}"


def _one_line(text: str) -> str:
    told: str = redact(text)
    return printable(one_line(told, 500))
