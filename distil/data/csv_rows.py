"""Rows of CSV files, read with the standard library: cells as written, each row with its line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from distil.data.converters import to_csv
from distil.data.text_files import Line, check_encoding, in_windows_1252, is_text, snippet
from distil.types import InputError

_DIVIDERS = (";", "\t", "|")
"""What divides columns in files that are called CSV, besides commas."""
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*")
WORDY = 6
"""Words of the longest name that a column has."""


def read_csv(where: str, path: Path) -> Iterator[Line]:
    """The rows of a CSV file, every cell text as written. Raises InputError for a header that names none.

    And for a malformed row of several lines: what a stray quote took in may be all the rows that follow, so
    that it is not one row to leave out.
    """
    csv.field_size_limit(2**31 - 1)  # a row may hold a long document
    with open(path, "rb") as file:
        check_encoding(where, file)
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        header = _header(where, reader, path)
        rows = 0
        while True:
            number = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                line = Line(number, {}, f"is not CSV: {error}")
            else:
                if row is None:
                    break
                if not row:
                    continue
                line = _of_cells(number, header, row)
            if line.fault is not None and reader.line_num > number:
                raise InputError(
                    f"{where}: line {number} {line.fault}. Its quotes hold lines {number} to "
                    f"{reader.line_num} together: close the quote that stays open, or write it twice "
                    '("") in a cell between quotes.'
                )
            rows += 1
            yield line
    if not rows:
        raise InputError(f"{where} has a header and no rows. Give a file with rows.")


def _of_cells(number: int, header: list[str], row: list[str]) -> Line:
    size = sum(map(len, row))
    if len(row) != len(header):
        fault = (
            f"has {len(row)} field{'s' * (len(row) != 1)}, the header {len(header)} (fields that hold commas "
            "or line breaks want quotes)"
        )
        return Line(number, {}, fault, size)
    if not all(map(is_text, row)):
        return Line(number, {}, f"is not UTF-8 text{in_windows_1252(_bytes_of(row))}", size)
    return Line(number, dict(zip(header, row, strict=True)), None, size)


def no_header(names: Iterable[str]) -> str:
    """A sentence for messages where half the names of columns or more look like cells; else nothing."""
    values = [_is_value(name) for name in names]
    if 2 * sum(values) < len(values):
        return ""
    return (
        "They look like a row: if that is what they are, put a line before it that names the columns, such "
        "as prompt,response, or instruction,context,response."
    )


def _is_value(name: str) -> bool:
    """Whether no column would be called ``name``: a sentence, a text of many words, a number."""
    words = name.split()
    sentence = len(words) > 1 and words[-1][-1] in ".!?"
    return sentence or len(words) > WORDY or _NUMBER.fullmatch(name) is not None


def _header(where: str, reader: Iterator[list[str]], path: Path) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise InputError(f"{where}: its first line is not CSV: {error}.") from error
    if not any(name.strip() for name in header):
        raise InputError(f"{where} has no header. Its first line must name the columns.")
    if not all(map(is_text, header)):
        told = in_windows_1252(_bytes_of(header)) or ". Convert the file"
        raise InputError(f"{where}: its first line is not UTF-8 text{told}.")
    if len(header) == 1 and (other := _other_divider(path)):
        raise InputError(
            f"{where}: its first line is one column, {snippet(header[0])}: are columns divided by {other!r}? "
            f"Commas are read. {to_csv(path, other)}"
        )
    header = [name.strip() for name in header]
    odd = [name or "a column without a name" for name in header if not name or header.count(name) > 1]
    if odd:
        told = f"{where}: its first line names {odd[0]} (column names must differ, none empty)."
        raise InputError(f"{told} {no_header(header)}".rstrip())
    return header


def _other_divider(path: Path) -> str | None:
    """What divides header and first row of a file into as many columns, other than a comma."""
    for each in _DIVIDERS:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            reader = csv.reader(lines, delimiter=each)
            header = next(reader, [])
            if len(header) > 1 and len(header) == len(next(filter(None, reader), [])):
                return each
    return None


def _bytes_of(cells: Sequence[str]) -> bytes:
    """What cells were read from, of bytes that are no UTF-8."""
    odd = [cell for cell in cells if not is_text(cell)]
    return " ".join(odd).encode("utf-8", "surrogateescape")
