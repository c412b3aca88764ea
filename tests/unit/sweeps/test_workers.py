"""What a job of a parallel launcher takes of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distil.sweeps.workers import clear, cores, jobs_at_once, shares, visible_devices

REPORT = """
import os, socket, sys
from pathlib import Path
from distil.sweeps.workers import Worker
folder, parent, threads, *devices = sys.argv[1:]
worker = Worker(Path(folder), socket.gethostname(), int(parent), int(threads), tuple(devices), silent=True)
worker.enter()
worker.enter()
print(os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES"))
sys.stdout.flush()
sys.stdin.read()
"""


def reporting(folder: Path, *words: str, parent: int | None = None) -> subprocess.Popen[str]:
    """A process that takes its share, says it, and lives until its input ends."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return subprocess.Popen(
        [sys.executable, "-c", REPORT, str(folder), str(parent or os.getpid()), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).resolve().parents[3],
    )


def line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_cores_are_divided_and_what_the_user_says_is_kept() -> None:
    threads, devices = shares(2, {"CUDA_VISIBLE_DEVICES": "0,3"})
    assert threads == max(1, cores() // 2)
    assert devices == ("0", "3")
    assert shares(10_000, {})[0] == 1
    assert shares(2, {"OMP_NUM_THREADS": "7"})[0] is None, "the user's own number reaches the jobs"


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("", ()),
        ("-1", ()),
        ("2", ("2",)),
        ("0, 1", ("0", "1")),
        ("GPU-5ab1,MIG-77", ("GPU-5ab1", "MIG-77")),
    ],
)
def test_devices_are_those_the_user_lets_us_see(value: str, devices: tuple[str, ...]) -> None:
    assert visible_devices({"CUDA_VISIBLE_DEVICES": value}) == devices
    assert jobs_at_once({"CUDA_VISIBLE_DEVICES": value}) == (len(devices) or cores())


def test_workers_take_turns_on_the_devices(tmp_path: Path) -> None:
    """Three at once on two devices; what one leaves the next one takes."""
    share = ["3", "4", "9"]
    processes = []
    for device in ("4", "9", "4"):
        processes.append(reporting(tmp_path, *share))
        assert line(processes[-1]) == ["3", "3", device]
    processes[1].communicate("")
    processes.append(reporting(tmp_path, *share))
    assert line(processes[-1]) == ["3", "3", "9"], "the place that is free"
    for process in processes:
        process.communicate("") if process.poll() is None else None
        assert process.returncode == 0


def test_a_worker_ends_with_the_sweep_that_started_it(tmp_path: Path) -> None:
    sweep = subprocess.Popen(["sleep", "100"])
    process = reporting(tmp_path, "1", parent=sweep.pid)
    assert line(process) == ["1", "1", "None"]
    sweep.kill()
    sweep.wait()
    assert process.wait(timeout=20) == -9


def test_what_workers_leave_is_removed_but_for_a_place_that_one_has(tmp_path: Path) -> None:
    """Else two of them would be given one GPU."""
    process = reporting(tmp_path, "1", "4", "9")
    assert line(process) == ["1", "1", "4"]
    clear(tmp_path)
    other = reporting(tmp_path, "1", "4", "9")
    assert line(other) == ["1", "1", "9"]
    for each in (process, other):
        each.communicate("")
    clear(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
