"""Ctrl-C, and signals by which a machine asks for its place back: SIGTERM, SIGUSR1 (Slurm), SIGHUP (a closed
terminal).

The first of them stops a run as Ctrl-C does, and ends it with an exit code of its own. Training puts it off
until the step is done and saved; elsewhere a run stops at once. Where Python or a library ignores what is
raised (a ``__del__``, a bare ``except``), the wish is remembered: the next step, and the next job, see it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from distil.processes.ranks import world_size
from distil.types import RunInterrupted, RunPreempted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))

REQUEUE = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""One of them is submitit's (``SUBMITIT_PREEMPT_SIGNAL``)."""


AGAIN = 1.0
"""Seconds in which the same wish may come several times (``timeout`` tells a process, then its group)."""


class Stopped(KeyboardInterrupt):
    """One of SIGNALS came; its name is the message."""


_asked: str | None = None
_interrupted = False
"""Whether Ctrl-C was heard outside training, which has a guard of its own."""
_raised = 0.0
"""When Stopped was last raised."""
_ending = False
"""Whether the end is being written."""
_deferred = 0
_theirs: dict[str, Callable[[int, FrameType | None], object]] = {}
"""Handlers that ours stands before."""
_terminal: list[int] = []
"""Descriptors of a terminal; one that is gone no longer says that it is one."""


def asked() -> str | None:
    """The signal that asked this process to stop, if one did."""
    return _asked


def wanted() -> bool:
    """Whether anybody asked this process to stop."""
    return _interrupted or _asked is not None


def check() -> None:
    """Raises KeyboardInterrupt where it was asked to stop and what was raised then got lost."""
    if wanted():
        raise Stopped(_asked) if _asked else KeyboardInterrupt


def interrupted(what: str) -> RunInterrupted:
    """``what`` happened, as the error of who asked for it: the user, or the machine."""
    global _ending
    _ending = True
    return RunPreempted(f"{what} ({_asked}).") if _asked else RunInterrupted(f"{what}.")


@contextmanager
def heard() -> Iterator[None]:
    """While inside, the first of SIGNALS raises Stopped, and so does a later one where nobody heard the
    first: Python ignores what is raised in a ``__del__``. While the end is written (``interrupted``) they
    change nothing.

    One that is ignored (nohup), or that somebody else has taken (submitit, a notebook), stays theirs. Of
    several processes each has the handlers that ``ranks`` gives it. Outside the main thread nothing changes.
    """
    global _asked, _interrupted, _ending
    _asked, _interrupted, _ending = None, False, False
    _terminal[:] = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
    mine = {signal.SIGINT: (signal.default_int_handler, _hear_interrupt)}
    mine |= dict.fromkeys(SIGNALS, (signal.SIG_DFL, _hear))
    taken = []
    for one, (default, handler) in mine.items() if world_size() == 1 else ():
        with suppress(ValueError):  # not the main thread
            if signal.getsignal(one) is default:
                signal.signal(one, handler)
                taken.append(one)
    try:
        with not_lost():
            yield
    finally:
        _ending, _interrupted = True, False
        for one in taken:
            if one is signal.SIGINT or _asked is None:  # others may come again while the process ends
                signal.signal(one, mine[one][0])


@contextmanager
def not_lost() -> Iterator[None]:
    """An import that was broken off, tried again, and fails for that, is the wish that broke it off."""
    try:
        yield
    except (ImportError, AttributeError) as error:
        if wanted():
            raise KeyboardInterrupt from error
        raise


def hear_first() -> None:
    """In a process of submitit: the signal at which it requeues its job stops the job first, and is passed on
    once that has written what it must."""
    for one in REQUEUE:
        theirs = signal.getsignal(one)
        if callable(theirs) and theirs is not _hear and threading.current_thread() is threading.main_thread():
            _theirs[signal.Signals(one).name] = theirs
            signal.signal(one, _hear)


def pass_on() -> None:
    """Hand what was heard to whoever listened before; submitit then ends the process."""
    if _asked in _theirs:
        _theirs[_asked](signal.Signals[_asked], None)


@contextmanager
def deferred() -> Iterator[None]:
    """While inside, a signal raises nothing: whoever is inside looks at ``asked`` where it suits."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1


def _hear(number: int, _frame: FrameType | None) -> None:
    global _asked, _raised
    first = _asked is None
    if not first and (_ending or _deferred or time.monotonic() - _raised < AGAIN):
        return
    _asked = _asked or signal.Signals(number).name
    if number == getattr(signal, "SIGHUP", None):
        _let_go_of_terminal()
    if not _deferred:
        _raised = time.monotonic()
        raise Stopped(_asked)
    # Not print(): it may have been interrupted itself.
    with suppress(OSError):
        os.write(2, f"\n{_asked}: stopping after this step, with a checkpoint.\n".encode())


def _hear_interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    signal.default_int_handler(number, frame)


def _let_go_of_terminal() -> None:
    """It is gone: what is written there fails, and so would the run."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in _terminal:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _as_before() -> None:
    """A forked child (a worker that loads data) ends by signals as any process does."""
    for one in {*SIGNALS, *REQUEUE}:
        if signal.getsignal(one) is _hear:
            signal.signal(one, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _hear_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=_as_before)
