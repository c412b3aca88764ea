"""A tracker's calls are made in order, in a line of their own; nothing that happens there reaches the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from distil.tracking import background
from distil.tracking.background import Background
from distil.tracking.base import Tracker


class Recorder(Tracker):
    """Notes its calls; fails at one of them, or waits in it for good."""

    def __init__(self, fails: str = "", hangs: str = "") -> None:
        self.fails, self.hangs = fails, hangs
        self.calls: list[Any] = []
        self.free = threading.Event()

    def _note(self, what: str, value: Any) -> None:
        self.calls.append((what, value))
        if what == self.hangs:
            self.free.wait(60)
        if what == self.fails:
            raise ConnectionError("no\nnetwork")

    def log(self, scalars: Mapping[str, float], step: int, ago: float = 0.0) -> None:
        self._note("log", (dict(scalars), step, ago))

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._note("samples", rows)

    def summary(self, results: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        self._note("summary", (results, cost))

    def files(self, run_dir: Path) -> None:
        self._note("files", run_dir)

    def finish(self, exit_code: int = 0) -> None:
        self._note("finish", exit_code)


def used(recorder: Recorder, answers: bool = True) -> list[str]:
    """A tracker through its life; what was abandoned."""
    abandoned: list[str] = []

    def abandon() -> None:
        abandoned.append("abandoned")
        recorder.free.set()

    with Background(recorder, lambda: answers, abandon, "Sync it.") as tracker:
        scalars = {"train/loss": 1.0}
        tracker.log(scalars, 1)
        scalars["train/loss"] = 2.0  # the caller's own again
        tracker.log(scalars, 2, 3.0)
        tracker.samples([{"prompt": "a"}])
        tracker.summary({"a": 1}, {"b": 2})
        tracker.files(Path("run"))
    tracker.finish(5)  # a second one does nothing
    return abandoned


def test_all_calls_in_order() -> None:
    recorder = Recorder()
    assert used(recorder) == []
    assert recorder.calls == [
        ("log", ({"train/loss": 1.0}, 1, 0.0)),
        ("log", ({"train/loss": 2.0}, 2, 3.0)),
        ("samples", [{"prompt": "a"}]),
        ("summary", ({"a": 1}, {"b": 2})),
        ("files", Path("run")),
        ("finish", 0),
    ]


@pytest.mark.parametrize("call", ["log", "samples", "summary", "files", "finish"])
def test_a_failure_is_said_once_and_the_tracker_is_closed(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(fails=call)
    assert used(recorder) == ["abandoned"]
    assert [what for what, _ in recorder.calls].count(call) == 1, "nothing more is asked of it"
    assert recorder.calls[-1][0] == "finish"
    (said,) = caplog.messages
    assert "the run goes on. Sync it. (ConnectionError: no network)" in said


def test_nobody_waits_for_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.5)
    monkeypatch.setattr(background, "LOOK", 0.1)
    began = time.monotonic()
    assert used(Recorder(hangs="samples"), answers=False) == ["abandoned"]
    assert 0.4 < time.monotonic() - began < 10
    assert caplog.messages == ["The tracker's server does not answer any more. Sync it."]


def test_what_takes_connections_and_no_call_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy whose server is down answers for good. Calls that get through are waited for, however many."""
    monkeypatch.setattr(background, "PATIENCE", 0.5)
    monkeypatch.setattr(background, "LOOK", 0.1)
    monkeypatch.setattr(background, "LONGEST", 1.0)
    began = time.monotonic()
    assert used(Recorder(hangs="finish")) == ["abandoned"]
    assert 0.9 < time.monotonic() - began < 10
    assert caplog.messages == ["The tracker's server does not answer any more. Sync it."]

    recorder = Recorder()
    tracker = Background(recorder, lambda: True, lambda: None, "")
    for _ in range(5):
        tracker._calls.put(lambda: time.sleep(0.4))
    tracker.finish()
    assert recorder.calls == [("finish", 0)]


def test_a_tracker_that_failed_is_not_waited_for_because_its_address_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.5)
    monkeypatch.setattr(background, "LOOK", 0.1)
    began = time.monotonic()
    assert used(Recorder(fails="log", hangs="finish")) == ["abandoned"]
    assert 0.4 < time.monotonic() - began < 10
    (said,) = caplog.messages
    assert "ConnectionError" in said


def test_a_slow_upload_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.3)
    monkeypatch.setattr(background, "LOOK", 0.1)
    recorder = Recorder(hangs="files")
    threading.Timer(1.5, recorder.free.set).start()
    assert used(recorder) == []
    assert recorder.calls[-1] == ("finish", 0)


def test_training_never_waits() -> None:
    recorder = Recorder(hangs="log")
    tracker = Background(recorder, lambda: True, lambda: None, "")
    began = time.monotonic()
    for step in range(1000):
        tracker.log({"train/loss": 1.0}, step)
    assert time.monotonic() - began < 5
    assert len(recorder.calls) <= 1
    recorder.free.set()
    tracker.finish()
    assert len(recorder.calls) == 1001
