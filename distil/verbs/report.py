"""``distil report RUN``: write the report of a run directory again and say where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distil.commands import rerun_command
from distil.run_files import RESULTS
from distil.types import InputError
from distil.verbs.arguments import Parser, warn


def main(arguments: Sequence[str]) -> int:
    """Write the page and print its path. The page that is there stays where the scores are gone."""
    parser = Parser("report", "Writes RUN_FOLDER/report.html again, from the other files of the run.")
    parser.add_argument("run", metavar="RUN_FOLDER", type=Path, help="a run directory")
    given = parser.read(arguments)
    if given is None:
        return 0
    from distil.report import read_run, write_report
    from distil.report.seal import in_few_lines

    record = read_run(given.run)
    if lost := [line for line in record.damaged if line.startswith(RESULTS)]:
        raise InputError(
            f"{given.run}: {lost[0]}: report.html is left as it is. Copy that file again, or make the run "
            f"once more: {rerun_command(record.command)}"
        )
    warn(given.run, in_few_lines(record.damaged))
    print(write_report(given.run))
    return 0
