"""Rows as a source gives them, by number: a table of ``datasets``, or a sequence of dicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distil.data.base import Row

BATCH = 1000
"""Rows read, and tokenised, at once."""
RawRows = Any
"""A ``datasets.Dataset`` or a sequence of dicts."""


def columns_of(rows: RawRows, numbers: Sequence[int] | None = None) -> list[str]:
    """The column names of raw rows, or of these among them; rows of a table have all the same."""
    names = getattr(rows, "column_names", None)
    if names is not None and (numbers is None or hasattr(rows, "select_columns")):
        return list(names)
    each = rows if numbers is None else (rows[number] for number in numbers)
    return list(dict.fromkeys(name for row in each for name in row))


def iterate(rows: RawRows, numbers: Sequence[int], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows by number; a ``datasets.Dataset`` is read in batches, and only these columns of it."""
    if not hasattr(rows, "select_columns"):
        yield from (rows[number] for number in numbers)
        return
    view = rows if columns is None else rows.select_columns(list(columns))
    for start in range(0, len(numbers), BATCH):
        batch = view[list(numbers[start : start + BATCH])]
        names = list(batch)
        yield from (dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True))
