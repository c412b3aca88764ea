"""The end of a sweep: the comparison of what is done, and which jobs failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from distil.report.comparison import compare, print_comparison, write_comparison
from distil.report.comparison.runs import LeftOut, is_run
from distil.sweeps.plan import ending
from distil.sweeps.record import DONE, FAILED, Job, SweepRecord
from distil.system.printable import one_line
from distil.tracking import how_to_see
from distil.types import InputError


def finish(record: SweepRecord, command: str, budget: str | None) -> None:
    """Compare the runs that are done, from their directories alone. Raises DistilError where a job failed.

    ``budget``: ``steps``, ``tokens`` or ``seconds`` to read the curves where all runs have spent the same.
    """
    error = ending(record.jobs(), command)
    jobs = record.end(FAILED if error else DONE)
    own = [job for job in jobs if job.same_as is None]
    runs = [record.folder / job.run for job in own if job.run is not None]
    if any(job.status == DONE for job in jobs):
        print()
        try:
            # Side by side even where nothing can be ranked (data were swept): the table says so itself.
            comparison = compare(
                [run for run in runs if is_run(run)],
                budget=budget,
                force=True,
                left_out=_without_directory(record, own),
            )
            write_comparison(comparison, record.folder)
        except InputError as refused:
            print(f"No comparison: {refused}", file=sys.stderr)
        else:
            print_comparison(comparison, Console(), record.folder)
    for line in how_to_see(runs, parent=record.folder):
        print(line)
    if error is not None:
        raise error


def _without_directory(record: SweepRecord, jobs: Sequence[Job]) -> list[LeftOut]:
    """The jobs that failed before they left a run directory."""
    return [
        LeftOut(job.label, f"{job.status}: {one_line(job.reason)}" if job.reason else job.status)
        for job in jobs
        if job.status != DONE and (job.run is None or not is_run(record.folder / job.run))
    ]
