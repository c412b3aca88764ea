"""Signals that ask a process to stop are heard, whatever was going on when they came."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from distil.engine.callbacks import InterruptGuard
from distil.system import stopping
from distil.types import InputError, RunPreempted


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = {one: signal.getsignal(one) for one in {*stopping.SIGNALS, *stopping.REQUEUE, signal.SIGINT}}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)
    stopping._asked = None
    stopping._interrupted = False
    stopping._theirs.clear()


class Kills:
    """Gets a signal where Python ignores whatever is raised."""

    def __init__(self, one: signal.Signals = signal.SIGTERM) -> None:
        self.one = one

    def __del__(self) -> None:
        os.kill(os.getpid(), self.one)
        time.sleep(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_signal_is_heard_when_it_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "AGAIN", 0.05)
    with stopping.heard():
        Kills()
        assert stopping.asked() == "SIGTERM"
        time.sleep(0.1)
        with pytest.raises(stopping.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        assert isinstance(stopping.interrupted("Stopped"), RunPreempted)
        os.kill(os.getpid(), signal.SIGTERM)  # the end is being written
        time.sleep(0)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)  # the process is ending
    time.sleep(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("one", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, stopping.Stopped)]
)
def test_a_swallowed_wish_is_seen_by_the_next_step_and_the_next_job(
    one: signal.Signals, error: type[KeyboardInterrupt]
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopping.check()
    with stopping.heard():
        assert not InterruptGuard().asked
        Kills(one)
        assert InterruptGuard().asked
        with pytest.raises(error):
            stopping.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if one is signal.SIGINT:
        assert not InterruptGuard().asked, "who ran a command in a notebook may train thereafter"
    with stopping.heard():
        stopping.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_what_fails_of_a_swallowed_wish_is_that_wish(one: signal.Signals) -> None:
    """A library swallows the interrupt within its import, tries again, and fails in its own words."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(error: Exception, stopped: bool) -> None:
        with stopping.heard():
            if stopped:
                Kills(one)
            raise error

    broken = ImportError("cannot load module more than once per process")
    for error, stopped, seen in (
        (broken, True, KeyboardInterrupt),
        (broken, False, ImportError),
        (InputError("said in words"), True, InputError),
        (OSError("no space left"), True, OSError),
    ):
        with pytest.raises(seen):
            run(error, stopped)


def test_only_who_took_a_signal_gives_it_back() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told = []

    def elsewhere() -> None:
        with stopping.heard():
            told.append("inside")

    with stopping.heard():
        ours = signal.getsignal(signal.SIGINT)
        with stopping.heard():
            pass
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGINT) is ours is not signal.default_int_handler
    assert told == ["inside"]


def test_a_wish_that_comes_twice_at_once_is_one() -> None:
    with stopping.heard():
        with pytest.raises(stopping.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)


def test_what_is_put_off_is_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "AGAIN", 0.0)
    with stopping.heard(), stopping.deferred():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0)
        assert stopping.asked() == "SIGUSR1"


def test_a_forked_worker_ends_by_every_signal() -> None:
    for one in stopping.REQUEUE:
        signal.signal(one, lambda *_: None)  # submitit's
    stopping.hear_first()
    with stopping.heard():
        taken = [one for one in {*stopping.SIGNALS, *stopping.REQUEUE} if _is_ours(one)]
        assert set(stopping.REQUEUE) < set(taken)
        child = os.fork()
        if child == 0:
            os._exit(sum(signal.getsignal(one) is not signal.SIG_DFL for one in taken))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _is_ours(one: signal.Signals) -> bool:
    return signal.getsignal(one) is stopping._hear
