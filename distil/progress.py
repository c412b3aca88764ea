"""Progress of whatever takes over two seconds; silent where the output is not a terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from distil.types import Report

logger = logging.getLogger(__name__)


class Progress:
    """Spinners and bars on one console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """A line that stays, for the person at the terminal; and for the log."""
        logger.info(line)
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def spinner(self, label: str) -> Iterator[None]:
        """Something is going on whose length nobody knows."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(label):
            yield

    @contextmanager
    def bar(self, label: str) -> Iterator[Report]:
        """A bar; the block is given the function that moves it."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with RichProgress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as shown:
            task = shown.add_task(label, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)
