"""The end of a sweep: the comparison of what is done, and which jobs failed."""

from __future__ import annotations

import sys

from rich.console import Console

from distil.report.comparison import compare, print_comparison, write_comparison
from distil.sweeps.plan import ending
from distil.sweeps.record import DONE, FAILED, SweepRecord
from distil.tracking import how_to_see
from distil.types import InputError


def finish(record: SweepRecord, command: str) -> None:
    """Compare the runs that are done, from their directories alone. Raises DistilError where a job failed."""
    error = ending(record.jobs(), command)
    jobs = record.end(FAILED if error else DONE)
    runs = [record.folder / job.run for job in jobs if job.run is not None and job.same_as is None]
    if any(job.status == DONE for job in jobs):
        print()
        try:
            # Side by side even where nothing can be ranked (data were swept): the table says so itself.
            comparison = compare([run for run in runs if run.is_dir()], force=True)
            write_comparison(comparison, record.folder)
        except InputError as refused:
            print(f"No comparison: {refused}", file=sys.stderr)
        else:
            print_comparison(comparison, Console(), record.folder)
    for line in how_to_see(runs, parent=record.folder):
        print(line)
    if error is not None:
        raise error
