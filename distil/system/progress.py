"""Progress of whatever takes over two seconds: bars in a terminal; elsewhere, and in the log, plain lines."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from distil.system.units import duration
from distil.types import Report

logger = logging.getLogger(__name__)

SOONEST, LATEST = 10.0, 600.0
"""Seconds between two plain lines: a tenth of the time so far, but neither less nor more than these."""


def pace(began: float) -> float:
    """Seconds between two plain lines on what began then."""
    return min(max(SOONEST, (time.monotonic() - began) / 10), LATEST)


class Lines:
    """Plain lines on how far something is and how long it still takes: seldom, and more seldom as it goes on.

    Args:
        note: takes a line.
        what: stands before the numbers.
        first: how much was done when it began.
    """

    def __init__(self, note: Callable[[str], None], what: str, first: int = 0) -> None:
        self.note, self.what, self.first = note, what, first
        self.began = self.told = time.monotonic()

    def at(self, done: int, total: int, facts: Sequence[str] = ()) -> None:
        """Say that ``done`` of ``total`` are done, with ``facts``, if it is time to."""
        now = time.monotonic()
        if done < total and now - self.told >= pace(self.began):
            self.told = now
            self.note(self._line(done, total, facts))

    def end(self, done: int, total: int, facts: Sequence[str] = ()) -> None:
        """The last line, where there was another; for the log there is one in any case."""
        (logger.info if self.told == self.began else self.note)(self._line(done, total, facts))

    def _line(self, done: int, total: int, facts: Sequence[str]) -> str:
        each = (time.monotonic() - self.began) / max(done - self.first, 1)
        left = f"about {duration(each * (total - done))} left" if self.first < done < total else ""
        return ", ".join(filter(None, (f"{self.what} {done:,} of {total:,}", *facts, left)))


class Progress:
    """Spinners and bars on one console.

    Args:
        console: a quiet one shows none of them.
        say: takes the lines that stay, in place of the console.
    """

    def __init__(self, console: Console, say: Callable[[str], None] | None = None) -> None:
        self.console = console
        self._say = self._print if say is None else say
        self.moves = console.is_terminal and not console.is_dumb_terminal
        self.told = time.monotonic()
        """When it last said something."""

    def say(self, line: str) -> None:
        """A line that stays, for the person at the terminal; and for the log."""
        logger.info(line)
        self._say(line)

    def note(self, line: str) -> None:
        """A line for the log, and for a console on which nothing moves."""
        logger.info(line)
        if not self.moves:
            self._print(line)

    def _print(self, line: str) -> None:
        self.told = time.monotonic()
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def spinner(self, label: str) -> Iterator[None]:
        """Something is going on whose length nobody knows."""
        with self.console.status(label) if self.moves else self.named(label):
            yield

    @contextmanager
    def named(self, label: str) -> Iterator[None]:
        """Where nothing moves, what is going on is said once nothing was for a while, and again after twice
        as long."""
        if self.moves:
            yield
            return
        over = threading.Event()
        first = max(self.told + SOONEST - time.monotonic(), 0.0)
        threading.Thread(target=self._name, args=(label, over, first), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _name(self, label: str, over: threading.Event, wait: float) -> None:
        began, pause = time.monotonic(), SOONEST
        while not over.wait(wait):
            if time.monotonic() >= self.told + pause:
                spent = time.monotonic() - began
                self.note(f"{label} …" if pause == SOONEST else f"{label} … ({duration(spent)} so far)")
                pause = 2 * pace(began)
            wait = max(self.told + pause - time.monotonic(), 0.0)

    @contextmanager
    def bar(self, label: str) -> Iterator[Report]:
        """A bar; the block is given the function that moves it."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        lines = Lines(self.note, f"{label}:")
        bar = RichProgress(*columns, console=self.console, transient=True, disable=not self.moves)
        with self.named(label), bar as shown:
            task = shown.add_task(label, total=None)

            def report(done: int, total: int) -> None:
                shown.update(task, completed=done, total=total)
                lines.at(done, total)

            yield report
