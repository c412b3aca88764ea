"""``sweep.json``: what was asked, and what each job came to.

Each job reports in a file of its own below ``.sweep/``, so that jobs of other processes and machines need no
common memory; ``sweep.json`` is put together from those files after each report, under a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distil.system.files import read_json, write_json

FORMAT = 1
"""Version of the layout of ``sweep.json``."""
NAME = "sweep.json"
REPORTS = ".sweep"
"""Hidden, so that nobody takes it for a run directory. Gone once a sweep has ended, but for logs."""

PENDING, RUNNING, DONE, FAILED, INTERRUPTED = "pending", "running", "done", "failed", "interrupted"


@dataclass
class Job:
    """One job of a sweep."""

    overrides: list[str]
    """All that its config was composed with."""
    label: str = ""
    """Those of its overrides that not all jobs have: what tells it from the others."""
    run: str | None = None
    """Its run directory, relative to the folder of the sweep. None: not known yet."""
    status: str = PENDING
    reason: str | None = None
    """Why it failed or stopped."""
    before: bool = False
    """It was done when the sweep was started."""
    seconds: float | None = None
    """What this sweep spent on it; of a job that was done before, what its run took."""
    same_as: int | None = None
    """Number of the job (from 1) with the same identity, which runs for both."""

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do for it in this sweep."""
        return self.status in (DONE, FAILED)

    @property
    def kind(self) -> str:
        """What jobs that differ in seed alone have in common; empty where the run is not known."""
        return (self.run or "").rpartition("-s")[0]


class SweepRecord:
    """The files of one sweep in ``folder``. ``key`` tells it from other sweeps in the same folder."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self._reports = folder / REPORTS / key

    def begin(self, command: str, jobs: Sequence[Job], total: int | None = None) -> None:
        """Forget the reports of an earlier attempt, and write down what is asked.

        Args:
            command: what was typed.
            jobs: all of them in their order; empty where a sweeper finds them as it goes.
            total: how many there will be; None: as many as ``jobs``, or nobody knows.
        """
        shutil.rmtree(self._reports, ignore_errors=True)
        self._reports.mkdir(parents=True)
        asked = {"format": FORMAT, "command": command, "status": RUNNING, "started": now(), "finished": None}
        planned = {"asked": asked, "total": total or len(jobs), "jobs": [asdict(job) for job in jobs]}
        write_json(self._reports / "plan.json", planned)
        self._write()

    def report(self, job: Job) -> None:
        """Write down what ``job`` came to, or that it runs."""
        file = self._reports / f"job-{_digest(job.overrides)}.json"
        first = read_json(file)["at"] if file.exists() else now()
        write_json(file, asdict(job) | {"at": first})
        self._write()

    def jobs(self) -> list[Job]:
        """All jobs as they stand: those planned, in their order, then others by when they first reported."""
        jobs = [Job(**entry) for entry in self._plan()["jobs"]]
        places: dict[str, int] = {}
        for number, job in enumerate(jobs):
            places.setdefault(_digest(job.overrides), number)
        unplanned = []
        for file in self._reports.glob("job-*.json"):
            entry = read_json(file)
            at = entry.pop("at")
            if (place := places.get(_digest(entry["overrides"]))) is not None:
                jobs[place] = Job(**entry)
            else:
                unplanned.append((at, Job(**entry)))
        jobs += [job for _, job in sorted(unplanned, key=lambda pair: (pair[0], pair[1].overrides))]
        for job in jobs:
            if job.same_as is not None:
                twin = jobs[job.same_as - 1]
                job.status, job.reason = twin.status, twin.reason
        return jobs

    def total(self) -> int:
        """How many jobs there will be; 0 where nobody knows."""
        return int(self._plan()["total"])

    def elapsed(self) -> float:
        """Seconds since ``begin``."""
        return (datetime.now(UTC) - datetime.fromisoformat(self._plan()["asked"]["started"])).total_seconds()

    def end(self, status: str) -> list[Job]:
        """Write how the sweep ended; the reports are in ``sweep.json`` then, and are removed.

        What a launcher wrote beside them (its logs) stays.
        """
        jobs = self.jobs()
        self._write(status)
        shutil.rmtree(self._reports, ignore_errors=True)
        below = sorted((self.folder / REPORTS).rglob("*/"), reverse=True)
        for empty in (*below, self.folder / REPORTS):
            with suppress(OSError):  # not empty
                empty.rmdir()
        return jobs

    def _plan(self) -> Any:
        return read_json(self._reports / "plan.json")

    def _write(self, ended: str | None = None) -> None:
        """Put ``sweep.json`` together. The lock keeps an older reading from overwriting a newer one."""
        with self._locked():
            told = self._plan()["asked"]
            if ended is not None:
                told |= {"status": ended, "finished": now()}
            jobs = self.jobs()
            told |= {"shared": shared([job.overrides for job in jobs])}
            rows = [{"number": number, **_shown(job, told["shared"])} for number, job in enumerate(jobs, 1)]
            write_json(self.folder / NAME, told | {"jobs": rows})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self._reports / "lock", "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def shared(jobs: Sequence[Sequence[str]]) -> list[str]:
    """The overrides that all ``jobs`` have, in the order of the first."""
    return [word for word in jobs[0] if all(word in job for job in jobs)] if jobs else []


def _shown(job: Job, shared: Sequence[str]) -> dict[str, Any]:
    """``job`` as it stands in ``sweep.json``, which names what all jobs share once."""
    told = asdict(job)
    del told["label"]
    return told | {"overrides": [word for word in job.overrides if word not in shared]}


def key_of(arguments: Sequence[str]) -> str:
    """What tells a sweep asked with ``arguments`` from others."""
    return _digest(arguments)


def now() -> str:
    """The time, to the microsecond: jobs of one second keep their order."""
    return datetime.now(UTC).isoformat()


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:12]
