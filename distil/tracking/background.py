"""A tracker that no run waits for, and that fails none: its calls stand in a line of their own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distil.system.printable import one_line
from distil.tracking.base import Tracker

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for which a server may be out of reach before its tracker is left behind, at the end of a run."""
LOOK = 5.0
"""Seconds between two looks at whether it answers."""
LONGEST = 600.0
"""Seconds that one call may take at the end of a run: what takes connections for a server need not be one."""


class Background(Tracker):
    """Hands each call to ``tracker`` in a thread. What goes wrong there is said once; the run goes on.

    Args:
        tracker: does the work.
        answers: whether its server does, known within seconds.
        abandon: ends what ``tracker`` still does for a server that does not answer.
        way_out: how its record gets there later, for messages.
    """

    def __init__(
        self, tracker: Tracker, answers: Callable[[], bool], abandon: Callable[[], None], way_out: str
    ) -> None:
        self._tracker, self._answers, self._abandon, self._way_out = tracker, answers, abandon, way_out
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failed = False
        self._exit_code: int | None = None
        self._moved = 0.0
        """When a call was last through."""
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def log(self, scalars: Mapping[str, float], step: int, ago: float = 0.0) -> None:
        """Record scalars, soon."""
        copy = dict(scalars)
        self._calls.put(lambda: self._tracker.log(copy, step, ago))

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record texts, soon."""
        self._calls.put(lambda: self._tracker.samples(rows))

    def summary(self, results: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Record results, soon."""
        self._calls.put(lambda: self._tracker.summary(results, cost))

    def files(self, run_dir: Path) -> None:
        """Keep files, soon."""
        self._calls.put(lambda: self._tracker.files(run_dir))

    def finish(self, exit_code: int = 0) -> None:
        """Close, once all is recorded: waits for a server that answers, not for one that does not, nor for a
        tracker that has failed."""
        if self._exit_code is not None:
            return
        self._exit_code = exit_code
        self._calls.put(None)
        self._moved = heard = looked = time.monotonic()
        try:
            while self._thread.is_alive() and (now := time.monotonic()) - heard < PATIENCE:
                if now - self._moved > LONGEST:
                    break
                self._thread.join(0.1)
                if self._thread.is_alive() and not self._failed and now - looked > LOOK:
                    looked = now
                    heard = time.monotonic() if self._answers() else heard
        finally:
            if self._thread.is_alive() and not self._failed:  # or Ctrl-C
                logger.warning("The tracker's server does not answer any more. %s", self._way_out)
            if self._thread.is_alive() or self._failed:
                self._failed = True  # said once
                self._abandon()
                self._thread.join(LOOK)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if not self._failed:
                self._attempt(call)
            self._moved = time.monotonic()
        self._attempt(lambda: self._tracker.finish(self._exit_code or 0))

    def _attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            if not self._failed:
                self._failed = True
                logger.warning(
                    "The tracker failed and records no more; the run goes on. %s (%s: %s)",
                    self._way_out, type(error).__name__, one_line(error),
                )  # fmt: skip
