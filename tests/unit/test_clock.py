"""What a run takes: seconds and memory add up over its sessions."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest

from distil.engine.clock import Clock
from distil.system.environment import peak_memory_bytes


def session(file: Path | None, *stages: str) -> Clock:
    """A session of a run that takes a hundredth of a second for each of ``stages``."""
    clock = Clock(file)
    for stage in stages:
        with clock(stage):
            time.sleep(0.01)
    return clock


def test_seconds_add_up_over_sessions(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    first = session(file, "load", "evaluate", "evaluate")
    assert 0.01 <= first.seconds["load"] < first.seconds["evaluate"]
    second = session(file, "load")
    assert second.seconds["load"] >= first.seconds["load"] + 0.01
    assert second.seconds["evaluate"] == first.seconds["evaluate"]


def test_a_run_that_starts_afresh_took_nothing_before(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    file.write_text(json.dumps({"seconds": {"load": 100.0, "x": 1.0}, "peak_memory_bytes": 10**15}), "utf-8")
    clock = Clock(file, resumes=False)
    with clock("load"):
        pass
    assert clock.seconds.keys() == {"load"}
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["seconds"]["load"] < 100
    assert kept["peak_memory_bytes"] < 10**15


def test_a_stage_that_fails_counts(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "spent.json")
    with suppress(ValueError), clock("load"):
        time.sleep(0.01)
        raise ValueError("no")
    assert Clock(tmp_path / "spent.json").seconds["load"] == clock.seconds["load"] >= 0.01


@pytest.mark.parametrize("before", [1, 10**15])
def test_the_peak_is_that_of_the_session_that_took_most(tmp_path: Path, before: int) -> None:
    file = tmp_path / "spent.json"
    file.write_text(json.dumps({"seconds": {}, "peak_memory_bytes": before}), encoding="utf-8")
    clock = session(file, "load")
    assert clock.peak_memory_bytes == max(before, clock.peak_memory_bytes)
    assert (clock.peak_memory_bytes == before) == (before > peak_memory_bytes())
    assert json.loads(file.read_text(encoding="utf-8"))["peak_memory_bytes"] == clock.peak_memory_bytes


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_that_was_lost_is_no_reason_to_stop(tmp_path: Path, text: str) -> None:
    (tmp_path / "spent.json").write_text(text, encoding="utf-8")
    assert session(tmp_path / "spent.json", "load").seconds["load"] < 1


def test_a_process_beside_the_first_writes_nothing(tmp_path: Path) -> None:
    session(None, "load")
    assert not list(tmp_path.iterdir())
