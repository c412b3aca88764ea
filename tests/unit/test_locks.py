"""A folder has one process at a time; the others wait or are refused, and a dead one holds nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distil.system import locks
from distil.system.locks import alone, in_use_by, release, remove_free, take
from distil.types import InputError

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from pathlib import Path
from distil.system import locks
from distil.system.locks import alone
with alone(Path(sys.argv[1]), None):
    if sys.argv[2:] != ["fork"] or os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(100)
"""


def holding(folder: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    """A process that is alone in ``folder`` for long, and the id of it, or of its child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_second_waits_says_for_whom_and_comes_when_the_first_is_through(tmp_path: Path) -> None:
    order: list[str] = []
    said: list[str] = []

    def second() -> None:
        with alone(tmp_path / "kd-s0", said.append):
            order.append("second")

    with alone(tmp_path / "kd-s0", said.append), alone(tmp_path / "kd-s1", said.append):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first")
    thread.join(timeout=20)
    assert order == ["first", "second"]
    (line,) = said
    assert f"kd-s0 is in use by process {os.getpid()} on {socket.gethostname()}" in line
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_wait_is_refused_until_the_holder_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "default"
    process, _ = holding(folder)
    with (
        pytest.raises(InputError, match=f"in use by process {process.pid} on .*another name="),
        alone(folder, None),
    ):
        raise AssertionError("two at once")
    process.kill()
    process.wait()
    assert list(folder.parent.iterdir()) != [], "what the dead one left is taken over"
    with alone(folder, None):
        pass
    assert list(folder.parent.iterdir()) == []


def test_folders_that_nothing_came_to_lie_in_go_again(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "default" / "kd-s0"
    with alone(folder, None):
        assert folder.parent.is_dir()
    assert list(tmp_path.iterdir()) == []
    with alone(folder, None):
        folder.mkdir()
    assert folder.is_dir()
    folder.rmdir()
    with alone(folder, None):
        pass
    assert folder.parent.is_dir(), "it was there before"


def test_who_waits_does_not_mind_that_the_folder_goes_meanwhile(tmp_path: Path) -> None:
    folder, waits = tmp_path / "out" / "kd-s0", threading.Event()

    def second() -> None:
        with alone(folder, lambda _: waits.set()):
            folder.mkdir()

    with alone(folder, None):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(20)
    thread.join(timeout=20)
    assert folder.is_dir()
    assert [path.name for path in folder.parent.iterdir()] == ["kd-s0"]


def test_a_forked_child_does_not_hold_what_its_dead_parent_held(tmp_path: Path) -> None:
    """As workers that load data."""
    process, child = holding(tmp_path / "run", "fork")
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # lives
        with alone(tmp_path / "run", None):
            os.kill(child, 0)  # beside it
        assert list(tmp_path.iterdir()) == [], "it was free, and is left so"
    finally:
        os.kill(child, 9)


def test_a_lock_that_another_has_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "0"
    lock = take(path)
    assert lock is not None
    remove_free(path)
    assert path.exists()
    release(lock)
    remove_free(path)
    assert not path.exists()


def test_a_file_system_without_locks_is_said_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No such file system is at hand: what it says is put in its place. Any other error comes through."""

    def without(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def broken(_descriptor: int, _how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", without)
    with alone(tmp_path / "run", None):
        pass
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path} has no locks (")
    assert said.endswith("start nothing twice at the same time.")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), alone(tmp_path / "run", None):
        pass


@pytest.mark.parametrize("say", [None, pytest.fail])
def test_whoever_only_looks_keeps_nobody_out(
    say: Callable[[str], None] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that begins while ``doctor`` looks waits for nobody, and a sweep is not refused."""
    (tmp_path / ".run.lock").write_text("process 1 on nowhere", encoding="utf-8")
    looking = [os.open(tmp_path / ".run.lock", os.O_RDONLY)]
    fcntl.flock(looking[0], fcntl.LOCK_SH)
    monkeypatch.setattr(locks.time, "sleep", lambda _: os.close(looking.pop()))  # the look ends meanwhile
    with alone(tmp_path / "run", say):
        assert not looking


def test_who_is_at_a_folder_is_told_and_nothing_is_touched(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock = tmp_path / ".run.lock"
    assert in_use_by(folder) is None
    assert not lock.exists()
    with alone(folder, None):
        there = lock.stat().st_mtime_ns
        assert in_use_by(folder) == f"process {os.getpid()} on {socket.gethostname()}"
        assert lock.stat().st_mtime_ns == there
    lock.write_text("process 1 on nowhere", encoding="utf-8")  # what a killed process leaves
    assert in_use_by(folder) is None
    assert lock.read_text(encoding="utf-8") == "process 1 on nowhere"
