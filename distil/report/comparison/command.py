"""``distil compare FOLDER…``: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from distil.report.comparison.budget import KINDS
from distil.report.comparison.compare import compare
from distil.report.comparison.files import write_comparison
from distil.report.comparison.runs import is_run
from distil.report.comparison.terminal import print_comparison
from distil.types import InputError

EPILOG = """\
Runs are grouped by what was swept, and seeds folded: mean, 95 % interval, paired differences from the
baseline. Writes comparison.html, .md, .csv, .json (results alone) and comparison_cost.json: into the folder
where it is one and nothing else is asked, otherwise into a folder comparison-… of its own, or --out.

  distil compare outputs/mine
  distil compare outputs/mine outputs/older --baseline kd --budget seconds
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}. See {self.prog} --help.")


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    arguments = _Parser(
        prog="distil compare",
        description="Compare run directories.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    arguments.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="run directories, or folders that hold them"
    )
    arguments.add_argument(
        "--baseline", metavar="NAME",
        help="group, method or adapter to hold the others against (sft among methods, none among adapters, "
        "the group of both where both were swept; else the first of the sweep)",
    )  # fmt: skip
    arguments.add_argument(
        "--budget", choices=KINDS, help="read the validation curves where all runs have spent the same"
    )
    arguments.add_argument(
        "--declared", action="append", default=[], metavar="KEY",
        help="a key that was tuned for each group by the same search: listed, no confound",
    )  # fmt: skip
    arguments.add_argument(
        "--force", action="store_true", help="show side by side, unranked, what cannot be ranked"
    )
    arguments.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="where the files go",
    )  # fmt: skip
    return arguments


def run_compare(arguments: Sequence[str]) -> int:
    """Compare, write the files, print the table; 0. Raises InputError as ``compare`` does."""
    try:
        given = parser().parse_args(arguments)
    except SystemExit:  # --help was printed
        return 0
    comparison = compare(given.folders, given.baseline, given.budget, given.force, given.declared)
    folder = given.out or _own_place(given)
    try:
        write_comparison(comparison, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror or error}. Give another folder: --out FOLDER."
        ) from error
    print_comparison(comparison, Console(), folder)
    return 0


def _own_place(given: argparse.Namespace) -> Path:
    """Where the files go. A folder's own comparison is of all its runs, as they are: another view, or one of
    other runs, does not take its place."""
    first: Path = given.folders[0]
    view = [given.baseline, given.budget, given.force, sorted(given.declared)]
    alone = len(given.folders) == 1 and not is_run(first)
    if alone and not any(view):
        return first
    asked = repr([view, sorted(str(folder.resolve()) for folder in given.folders)])
    around = first if alone else first.resolve().parent
    return around / f"comparison-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
