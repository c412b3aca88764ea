"""What a run takes over all of its sessions: seconds by stage, and memory at its peak."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distil.system import environment
from distil.system.files import read_json, write_json


class Clock:
    """Seconds by stage. A resumed run adds to those of its earlier sessions, which ``file`` keeps for it.

    Training has a clock of its own (``MetricsLog``), that goes back to the checkpoint with it.

    Args:
        file: where seconds and memory are kept. None: nowhere, of a process that writes nothing.
        resumes: whether the run goes on with its earlier sessions; not where it starts afresh.
    """

    def __init__(self, file: Path | None, resumes: bool = True) -> None:
        self.file = file
        kept = _kept(file) if file is not None and resumes else {}
        self.seconds: dict[str, float] = dict(kept.get("seconds", {}))
        self.peak_memory_bytes: int = kept.get("peak_memory_bytes", 0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the block to ``stage``."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
            self.keep()

    def keep(self) -> None:
        """Look at the memory, and write down what was taken so far."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, environment.peak_memory_bytes())
        if self.file is not None:
            write_json(self.file, {"seconds": self.seconds, "peak_memory_bytes": self.peak_memory_bytes})


def _kept(file: Path) -> Mapping[str, Any]:
    """What earlier sessions took; nothing where there were none, or a disk lost it."""
    try:
        kept = read_json(file)
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
