"""sweep.json: put together from the reports of jobs, whoever writes them and in whatever order."""

from __future__ import annotations

import json
import multiprocessing
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from distil.sweeps.record import DONE, FAILED, PENDING, RUNNING, Job, SweepRecord, key_of, shared

KEY = key_of(["python run.py -m seed=0,1"])


def told(folder: Path) -> Any:
    return json.loads((folder / "sweep.json").read_text(encoding="utf-8"))


def begun(folder: Path, count: int) -> SweepRecord:
    folder.mkdir(exist_ok=True)
    record = SweepRecord(folder, KEY)
    record.begin("python run.py -m …", [Job(["method=kd", f"seed={n}"], f"seed={n}") for n in range(count)])
    return record


def test_what_was_asked_and_what_each_job_came_to(tmp_path: Path) -> None:
    record = begun(tmp_path, 3)
    assert [job["status"] for job in told(tmp_path)["jobs"]] == [PENDING] * 3
    jobs = record.jobs()
    jobs[1].status, jobs[1].reason = FAILED, "the disk is full"
    record.report(jobs[1])
    jobs[0].status, jobs[0].seconds = DONE, 2.5
    record.report(jobs[0])
    whole = told(tmp_path)
    assert whole["command"] == "python run.py -m …"
    assert whole["status"] == RUNNING
    assert whole["shared"] == ["method=kd"]
    assert [job["overrides"] for job in whole["jobs"]] == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert [job["status"] for job in whole["jobs"]] == [DONE, FAILED, PENDING]
    assert whole["jobs"][1]["reason"] == "the disk is full"
    (tmp_path / ".sweep" / "launcher" / "0").mkdir(parents=True)
    record.end(FAILED)
    assert told(tmp_path)["status"] == FAILED
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"], "reports are folded in"


def test_a_new_attempt_forgets_the_reports_of_the_last(tmp_path: Path) -> None:
    record = begun(tmp_path, 2)
    job = record.jobs()[0]
    job.status = RUNNING  # and then the process was killed
    record.report(job)
    assert [job.status for job in begun(tmp_path, 2).jobs()] == [PENDING, PENDING]


def test_a_job_that_is_another_one_follows_it(tmp_path: Path) -> None:
    record = SweepRecord(tmp_path, KEY)
    record.begin("c", [Job(["seed=1"]), Job(["seed=1"], same_as=1), Job(["seed=01"], same_as=1)])
    first = record.jobs()[0]
    first.status, first.reason = FAILED, "why"
    record.report(first)
    assert [(job.status, job.reason, job.same_as) for job in record.jobs()] == [
        (FAILED, "why", None),
        (FAILED, "why", 1),
        (FAILED, "why", 1),
    ]


def test_jobs_that_nobody_planned_are_added_in_their_order(tmp_path: Path) -> None:
    record = SweepRecord(tmp_path, KEY)
    record.begin("c", [])
    for rate in ("1e-3", "1e-2", "1e-4"):
        record.report(Job([f"trainer.learning_rate={rate}"], status=DONE))
    assert [job.overrides[0][-4:] for job in record.jobs()] == ["1e-3", "1e-2", "1e-4"]


def _report(folder: Path, number: int) -> None:
    record = SweepRecord(folder, KEY)
    job = record.jobs()[number]
    for status in (RUNNING, DONE):
        job.status = status
        record.report(job)


def test_a_job_keeps_its_place_when_it_reports_again(tmp_path: Path) -> None:
    record = SweepRecord(tmp_path, KEY)
    record.begin("command", [])
    first, second = Job(["method=sft"], "method=sft"), Job(["method=kd"], "method=kd")
    for job in (first, second, first):
        record.report(job)
    assert [job.label for job in record.jobs()] == ["method=sft", "method=kd"]


def test_processes_that_report_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each rewrites the file; none with an older reading than the one that is there."""
    begun(tmp_path, 12)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_report, args=(tmp_path, number)) for number in range(12)]
    for process in processes:
        process.start()
    seen = []
    while any(process.is_alive() for process in processes):
        seen.append(sum(job["status"] == DONE for job in told(tmp_path)["jobs"]))  # readable at any time
        time.sleep(0.001)
    assert all(before <= after for before, after in pairwise(seen))
    assert [process.exitcode for process in processes] == [0] * 12
    assert [job["status"] for job in told(tmp_path)["jobs"]] == [DONE] * 12


def test_two_sweeps_in_one_folder_keep_their_reports_apart(tmp_path: Path) -> None:
    record = begun(tmp_path, 1)
    other = SweepRecord(tmp_path, key_of(["another command"]))
    other.begin("another", [Job(["seed=7"])])
    other.end(DONE)
    assert record.jobs()[0].overrides == ["method=kd", "seed=0"]


def test_what_jobs_share() -> None:
    assert shared([["a=1", "b=1"], ["a=1", "b=2"]]) == ["a=1"]
    assert shared([]) == []
