"""A sweep through the real command: done, again, killed, stopped, with a job that fails. Equal to the bit."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from distil.system.locks import alone
from tests.end_to_end.conftest import Command, started

JOBS = 12
SWEPT = ["method=sft,kd,gkd", "seed=0,1,2,3"]


@pytest.fixture(scope="module")
def sweep_arguments(small_arguments: list[str]) -> list[str]:
    short = ["trainer.max_steps=14", "eval.generation_rows=2", "eval.metrics=[likelihood,agreement]"]
    return ["-m", *small_arguments, *short, *SWEPT]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, sweep_arguments: list[str], run_command: Command
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of the sweep that nobody disturbed, and what its command said."""
    output = tmp_path_factory.mktemp("peace")
    done = run_command(*sweep_arguments, f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    return output / "default", done


def told(folder: Path) -> Any:
    return json.loads((folder / "sweep.json").read_text(encoding="utf-8"))


def wait_for_a_job(process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 200
    while b"\njob " not in log.read_bytes() and process.poll() is None:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_a_sweep_says_what_it_did(
    undisturbed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """One directory a job, sweep.json, a line or two a job, the comparison."""
    folder, done = undisturbed
    sweep = told(folder)
    assert sweep["status"] == "done"
    assert len(sweep["jobs"]) == JOBS
    for job in sweep["jobs"]:
        assert job["status"] == "done"
        assert (folder / job["run"] / "results.json").is_file()
        assert {word.partition("=")[0] for word in job["overrides"]} == {"method", "seed"}
    names = {path.name for path in folder.iterdir()} - {job["run"] for job in sweep["jobs"]}
    files = "sweep.json comparison.json comparison_cost.json comparison.csv comparison.md comparison.html"
    assert names == set(files.split())
    assert f"Sweep of {JOBS} jobs" in done.stdout
    assert "comparison.html" in done.stdout
    said = [line for line in done.stderr.splitlines() if not line.startswith(("training:", "evaluating"))]
    waits = re.compile(r" …( \(.* so far\))?$")  # a machine at other work makes them long
    lines = [line for line in said if not waits.search(line)]
    assert len(lines) == 2 * JOBS, "the job, and what it came to: no table, no samples"
    assert lines[0] == f"job 1 of {JOBS}: method=sft seed=0"
    assert lines[-2].startswith(f"job {JOBS} of {JOBS}, about ")
    assert lines[-1].startswith(f"  job {JOBS} done in ")
    assert "nll" in lines[-1]
    assert "kl_to_teacher" in lines[-1]


def test_the_same_command_again_runs_nothing(
    undisturbed: tuple[Path, subprocess.CompletedProcess[str]],
    sweep_arguments: list[str],
    run_command: Command,
) -> None:
    folder, _ = undisturbed
    runs = [folder / job["run"] for job in told(folder)["jobs"]]
    before = {path: path.stat().st_mtime_ns for run in runs for path in [run, *run.rglob("*")]}
    comparison = (folder / "comparison.json").read_bytes()
    again = run_command(*sweep_arguments, f"output_dir={folder.parent}")
    assert again.returncode == 0, again.stderr
    assert f"{JOBS} done before." in again.stdout
    assert again.stderr == ""
    assert before == {path: path.stat().st_mtime_ns for run in runs for path in [run, *run.rglob("*")]}
    assert (folder / "comparison.json").read_bytes() == comparison


def test_a_job_is_the_run_that_it_is_alone(
    undisturbed: tuple[Path, subprocess.CompletedProcess[str]],
    sweep_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
) -> None:
    """Eleven jobs in the same process before it leave no trace in its numbers."""
    folder, _ = undisturbed
    last = told(folder)["jobs"][-1]
    alone = [word for word in sweep_arguments[1:] if word not in SWEPT]
    done = run_command(*alone, *last["overrides"], f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "default" / last["run"]
    for name in ("results.json", "samples.jsonl", "student/model.safetensors"):
        assert (run / name).read_bytes() == (folder / last["run"] / name).read_bytes()


def test_memory_does_not_grow(undisturbed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = undisturbed
    peaks = [
        json.loads((folder / job["run"] / "cost.json").read_text(encoding="utf-8"))["peak_memory_bytes"]
        for job in told(folder)["jobs"]
    ]
    assert peaks[-1] <= 1.05 * peaks[0], peaks


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_a_sweep_that_is_killed_comes_to_the_same_bytes(
    kills: int,
    undisturbed: tuple[Path, subprocess.CompletedProcess[str]],
    sweep_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
) -> None:
    """kill -9 at random moments, each time the same command again."""
    arguments = [*sweep_arguments, f"output_dir={tmp_path / 'out'}"]
    folder, log, chance = tmp_path / "out" / "default", tmp_path / "log", random.Random(kills)
    expected = (undisturbed[0] / "comparison.json").read_bytes()
    killed = 0
    while killed < kills:
        process = started(*arguments, log=log)
        if chance.random() < 0.8:  # else while it imports, plans, or begins
            wait_for_a_job(process, log)
        time.sleep(chance.uniform(0, 3))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:  # it was quicker: the next is killed from the start on
            assert process.returncode == 0, log.read_text()
            assert (folder / "comparison.json").read_bytes() == expected
            shutil.rmtree(folder)
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert (folder / "comparison.json").read_bytes() == expected
    assert [job["status"] for job in told(folder)["jobs"]] == ["done"] * JOBS


def test_ctrl_c_ends_the_sweep_and_the_same_command_goes_on(
    undisturbed: tuple[Path, subprocess.CompletedProcess[str]],
    sweep_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a folder of the user's home, as one writes it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    swept = ["method=kd", "seed=0,1,2"]
    arguments = [word for word in sweep_arguments if word not in SWEPT] + swept
    arguments.append("output_dir='~/out'")
    folder, log = tmp_path / "out" / "default", tmp_path / "log"
    process = started(*arguments, log=log)
    wait_for_a_job(process, log)
    deadline = time.monotonic() + 100
    while not list(folder.glob("*/checkpoints/checkpoint-6")) and process.poll() is None:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=100) == 130, log.read_text()
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "The same command goes on:\n  python run.py -m " in said
    sweep = told(folder)
    assert sweep["status"] == "interrupted"
    states = [job["status"] for job in sweep["jobs"]]
    assert "interrupted" in states
    assert "pending" in states
    assert not (folder / "comparison.json").exists()

    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "1 begun before" in done.stdout
    for job in told(folder)["jobs"]:
        run, same = folder / job["run"], undisturbed[0] / job["run"]
        assert (run / "results.json").read_bytes() == (same / "results.json").read_bytes()


def test_a_failed_job_ends_no_other_and_is_tried_again(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """A learning rate that blows up, first of all jobs; and a job that is written twice runs once."""
    arguments = [word for word in small_arguments if not word.startswith("trainer.learning_rate")]
    swept = ["trainer.learning_rate=1e30,1e-2,1e-2,1e-3", "method=kd"]
    command = ["-m", *arguments, *swept, "trainer.max_grad_norm=0", f"output_dir={tmp_path}"]
    done = run_command(*command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Job 3 is the same run as job 2: it runs once." in done.stdout
    assert "error: 1 of 3 jobs failed:\n  job 1 (trainer.learning_rate=1e+30): " in done.stderr
    sweep = told(tmp_path / "default")
    assert sweep["status"] == "failed"
    assert [job["status"] for job in sweep["jobs"]] == ["failed", "done", "done", "done"]
    assert "step" in sweep["jobs"][0]["reason"]
    assert sweep["jobs"][2]["same_as"] == 2
    comparison = json.loads((tmp_path / "default" / "comparison.json").read_text(encoding="utf-8"))
    assert len(comparison["groups"]) == 2, "of the rest"
    assert sweep["jobs"][0]["run"] in json.dumps(comparison), "and says what it leaves out"

    again = run_command(*command)
    assert again.returncode == 1
    assert "2 done before, 1 begun before" in again.stdout
    assert again.stderr.count("\njob ") + again.stderr.startswith("job ") == 1, "the failed one alone"


def test_one_sweep_at_a_time_works_in_a_folder(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """The second says whose it is and what to do, and touches nothing of the first."""
    command = ["-m", *small_arguments, "method=sft,kd", f"output_dir={tmp_path}"]
    with alone(tmp_path / "default", None):
        refused = run_command(*command)
    assert refused.returncode == 2
    assert f"in use by process {os.getpid()} on {socket.gethostname()}" in refused.stderr
    assert "another name=" in refused.stderr
    assert list(tmp_path.iterdir()) == []
