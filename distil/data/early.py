"""What a small text file tells before anything heavy loads: whether each split will have a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distil.data.base import ColumnsConfig, MalformedRow, Row
from distil.data.columns import Kind, Shape, as_text, prompt_of
from distil.data.encoded import EMPTY_PROMPT, EMPTY_RESPONSE, EMPTY_TEXT
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
    """Raise InputError where the rows of a text file are too few for the ``missing`` splits, or all empty.

    Knows no tokenizer: rows that turn out too long are found later.
    """
    reasons = Counter(_empty(row, shape, where) for row in rows)
    if not reasons[None]:
        raise InputError(
            f"{where}: no row has anything to learn from: {_listed(reasons)}. Look at the columns."
        )
    for split, numbers in set_aside(rows, shape, missing, config, where).items():
        empty = Counter(_empty(rows[number], shape, where) for number in numbers)
        if not empty[None]:
            raise InputError(
                f"{where}: no row for {split} has anything to learn from: {_listed(empty)}. "
                "Leave such rows out of the file, or draw others for it: data.split_seed=1."
            )


def _listed(reasons: Counter[str | None]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common() if count)


def _empty(row: Row, shape: Shape, where: str) -> str | None:
    """What of ``row`` is empty; None where nothing is, or where that is not for here to say."""
    try:
        if shape.kind is Kind.TEXT:
            return None if as_text(row.get(shape.text or ""), "", where).strip() else EMPTY_TEXT
        if shape.kind is not Kind.PAIR:
            return None
        if not prompt_of(row, shape, True, where).strip():
            return EMPTY_PROMPT
        return None if as_text(row.get(shape.response or ""), "", where).strip() else EMPTY_RESPONSE
    except MalformedRow:
        return None
