"""What environment.json says is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distil.system import environment, machine


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", root, *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "distil").mkdir()
    (tmp_path / "distil" / "a.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("hello\n", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_clean_checkout(checkout: Path) -> None:
    assert environment.git_state(checkout) == {"revision": git(checkout, "rev-parse", "HEAD"), "dirty": None}


def test_dirty_is_a_hash_of_what_is_not_committed(checkout: Path) -> None:
    states = set()
    (checkout / "README.md").write_text("changed\n", encoding="utf-8")  # not code
    assert environment.git_state(checkout)["dirty"] is None
    (checkout / "distil" / "a.py").write_text("x = 2\n", encoding="utf-8")
    states.add(environment.git_state(checkout)["dirty"])
    (checkout / "distil" / "new ü.py").write_text("y = 1\n", encoding="utf-8")
    states.add(environment.git_state(checkout)["dirty"])
    (checkout / "distil" / "new ü.py").write_text("y = 2\n", encoding="utf-8")
    states.add(environment.git_state(checkout)["dirty"])
    git(checkout, "add", ".")
    assert environment.git_state(checkout)["dirty"] is not None
    assert len(states) == 3
    assert None not in states


def test_outside_a_checkout_nothing_is_claimed(checkout: Path) -> None:
    inside = checkout / "site-packages"
    inside.mkdir()
    assert environment.git_state(inside) == {"revision": None, "dirty": None}


def test_threads_of_one_run_are_not_those_of_the_next() -> None:
    own = torch.get_num_threads()
    try:
        environment.use_threads(own + 1)
        assert torch.get_num_threads() == own + 1
        environment.use_threads(None)
        assert torch.get_num_threads() == own
    finally:
        torch.set_num_threads(own)


def test_environment_json(tmp_path: Path) -> None:
    found = environment.describe_environment("python run.py seed=1")
    json.dumps(found, allow_nan=False)
    assert set(found) == {"command", "versions", "git", "device", "python", "platform", "threads"}
    assert found["command"] == "python run.py seed=1"
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["python"] == sys.version.split()[0]
    assert found["device"]


def test_code_version_follows_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report").mkdir()
    for name in ("trainer.py", "report/page.py"):
        (tmp_path / name).write_text("x = 1\n", encoding="utf-8")
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    before = environment.code_version()
    (tmp_path / "report" / "page.py").write_text("x = 2\n", encoding="utf-8")
    assert environment.code_version() == before  # what only shows results computes none
    (tmp_path / "trainer.py").write_text("x = 2\n", encoding="utf-8")
    changed = environment.code_version()
    (tmp_path / "trainer.py").rename(tmp_path / "engine.py")
    assert len({before, changed, environment.code_version()}) == 3


PEAK = """
from distil.system.environment import peak_memory_bytes, reset_peak_memory
before = peak_memory_bytes()
block = bytearray(200 * 2**20)
with_block = peak_memory_bytes()
del block
after = peak_memory_bytes()
reset_peak_memory()
print(before, with_block, after, peak_memory_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the mark can be reset on Linux only")
def test_peak_memory_is_a_high_water_mark_that_can_be_reset() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, with_block, after, reset = map(int, done.stdout.split())
    assert with_block - before == pytest.approx(200 * 2**20, rel=0.1)
    assert after == pytest.approx(with_block, rel=0.02)
    assert reset < after - 150 * 2**20


@pytest.mark.parametrize(
    ("width", "threads", "load", "told"),
    [(64, 2, 4.0, True), (64, 1, 99.0, False), (64, 2, 2.5, False), (4096, 2, 99.0, False)],
)
def test_threads_that_wait_for_each_other_are_told(
    width: int, threads: int, load: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    line = environment.crowded(width)
    assert (line is not None and "run.threads=1" in line) is told


def test_more_threads_than_cores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpus", lambda: (8, 2.5))
    assert machine.more_threads_than_cores(2) is None
    line = machine.more_threads_than_cores(3)
    assert line is not None
    assert line.startswith("run.threads=3, but this process has 2 cores: ")
    assert line.endswith("Take run.threads=2 at most.")
