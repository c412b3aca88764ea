"""The end of a sweep: what it came to, and which jobs failed."""

from __future__ import annotations

from distil.sweeps.plan import ending
from distil.sweeps.record import DONE, FAILED, SweepRecord


def finish(record: SweepRecord, command: str) -> None:
    """Write down how the sweep ended. Raises DistilError where a job failed."""
    error = ending(record.jobs(), command)
    record.end(FAILED if error else DONE)
    if error is not None:
        raise error
