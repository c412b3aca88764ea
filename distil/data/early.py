"""What a small text file tells before anything heavy loads: whether each split will have a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distil.data.base import ColumnsConfig, place_of
from distil.data.columns import Shape
from distil.data.encode import nothing_in
from distil.data.encoded import NO_ASSISTANT
from distil.data.held_out import set_aside
from distil.data.local import FORMATS, load_file
from distil.data.text_files import TextRows
from distil.types import InputError

SMALL = 4 * 2**20
"""Bytes: what is wrong with larger files is found once they are loaded."""


def small_rows(where: str, path: Path) -> TextRows | None:
    """The rows of a text file that is small enough to be looked at whole; None for any other file.

    Raises InputError like ``load_file``.
    """
    if FORMATS.get(path.suffix.lower()) in (None, "parquet") or not path.is_file():
        return None
    if path.stat().st_size > SMALL:
        return None
    rows = load_file(where, path)
    assert isinstance(rows, TextRows)
    return rows


def check_rows(
    config: ColumnsConfig, where: str, rows: TextRows, shape: Shape, missing: Sequence[str]
) -> None:
    """Raise InputError where the rows of a text file are too few for the ``missing`` splits, or all empty;
    MalformedRow for the first whose cells are not what their columns are read as.

    Knows no tokenizer: rows that turn out too long are found later.
    """
    found = [
        nothing_in(row, shape, f"{where}, {place_of(line, number)}")
        for number, (row, line) in enumerate(zip(rows, rows.lines, strict=True))
    ]
    reasons = Counter(found)
    if not reasons[None]:
        turns = "What is learnt are turns of role assistant: give each row one, after its prompt."
        way_out = turns if set(reasons) == {NO_ASSISTANT} else "Look at the columns."
        raise InputError(f"{where}: no row has anything to learn from: {_listed(reasons)}. {way_out}")
    for split, numbers in set_aside(rows, shape, missing, config, where).items():
        empty = Counter(found[number] for number in numbers)
        if not empty[None]:
            raise InputError(
                f"{where}: no row for {split} has anything to learn from: {_listed(empty)}. "
                "Leave such rows out of the file, or draw others for it: data.split_seed=1."
            )


def _listed(reasons: Counter[str | None]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common() if count)
