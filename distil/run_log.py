"""The log of one run, in its directory: what the project and its libraries say, without secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from distil.system.printable import printable
from distil.system.quiet import lossy_logging
from distil.system.redact import redact

_SAID: ContextVar[set[str] | None] = ContextVar("said", default=None)
"""What the runs of a sweep have shown so far that is said once; None: this is no sweep."""


class _Redacted(logging.Formatter):
    """Libraries log addresses and paths as they were given, secrets and all, and texts of data with them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(redact(super().format(record)))


class _ForTerminal(_Redacted):
    """``warning: …``, as the command line begins its own."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


class _File(logging.FileHandler):
    """A line that a full disk does not take is lost: the run's own error is what the user must see."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing of it."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def log_file(path: Path, *, said_at_end: bool = True) -> Iterator[None]:
    """Everything the project and its libraries log goes to ``run.log`` as well.

    Our own warnings go to the terminal, too, but for records that are ``file_only``: how a run ended is told
    there by the command line. So is what came out, where a summary or a comparison follows: with
    ``said_at_end`` records that are so, too, go to the file alone. Of a sweep, records that are ``said_once``
    (what is odd about a config or its data, not what happens to a run) go there where they are not new.
    """
    handler = _File(path, encoding="utf-8")
    handler.setFormatter(_Redacted("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, ours = logging.getLogger(), logging.getLogger("distil")
    level = ours.level
    shown = logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    hidden = ("file_only", "said_at_end") if said_at_end else ("file_only",)
    shown.addFilter(lambda record: not any(getattr(record, name, False) for name in hidden))
    shown.addFilter(_is_new)
    shown.setFormatter(_ForTerminal())
    root.addHandler(handler)
    ours.addHandler(shown)
    ours.setLevel(logging.INFO)
    try:
        with lossy_logging():  # of trackers too, whose logs lie in the run directory
            yield
    finally:
        ours.setLevel(level)
        ours.removeHandler(shown)
        root.removeHandler(handler)
        handler.close()


@contextmanager
def said_once() -> Iterator[None]:
    """Within it runs follow one another: of records that are ``said_once`` what one has shown no later one
    shows again. Each log has it all."""
    token = _SAID.set(set())
    try:
        yield
    finally:
        _SAID.reset(token)


def _is_new(record: logging.LogRecord) -> bool:
    said, line = _SAID.get(), record.getMessage()
    if said is None or not getattr(record, "said_once", False):
        return True
    new = line not in said
    said.add(line)
    return new
