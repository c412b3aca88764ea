"""Rows of text files, read with the standard library: each with its line, or what is wrong with it."""

from __future__ import annotations

import codecs
import csv
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any, overload

from distil.types import InputError

DEEPEST = 100
"""How many lists and objects a row may hold inside each other."""
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON spells either half of a surrogate pair."""
_DIVIDERS = (";", "\t", "|")
"""What divides columns in files that are called CSV, besides commas."""
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*")
WORDY = 6
"""Words of the longest name that a column has."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """One row of a file: ``number`` is the line that it begins on, from 1; 0 where rows are not lines.

    ``row`` is empty where ``fault`` says what is wrong.
    """

    number: int
    row: dict[str, Any]
    fault: str | None = None
    size: int = 0
    """Characters it was read from, about."""


@dataclass
class TextRows(Sequence[dict[str, Any]]):
    """The rows of a text file, in order. A malformed one is empty, and ``faults`` says why, by row number."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    column_names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[Line]) -> TextRows:
        """All of them."""
        read = cls()
        names: dict[str, None] = {}
        for line in lines:
            if line.fault is not None:
                read.faults[len(read.rows)] = line.fault
            read.rows.append(line.row)
            read.lines.append(line.number)
            names.update(dict.fromkeys(line.row))
        read.column_names = list(names)
        return read

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


def read_json(where: str, path: Path) -> Iterator[Line]:
    """The rows of JSON Lines, or of one JSON list. Raises InputError, opened by ``where``, for neither."""
    with open(path, "rb") as file:
        _check_encoding(where, file)
        listed = _begins(file).startswith(b"[")
    if listed:
        try:
            yield from _of_list(where, path)
            return
        except json.JSONDecodeError as error:
            if path.suffix.lower() == ".json":
                raise InputError(f"{where} is not JSON: {error.msg} in line {error.lineno}.") from error
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if text.strip():
                yield _of_line(number, text)


def _of_line(number: int, line: bytes) -> Line:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        told = f"is not UTF-8 text: {error.reason} at its byte {error.start}{_in_windows_1252(line)}"
        return Line(number, {}, told, len(line))
    try:
        value = json.loads(text, object_pairs_hook=_Pairs.of)
    except json.JSONDecodeError as error:
        fault = f"is not a JSON object: {snippet(text)} ({error.msg} at its character {error.pos + 1})"
        return Line(number, {}, fault, len(line))
    except RecursionError:
        return Line(number, {}, "is nested too deeply", len(line))
    except ValueError as error:  # a key that is given twice, a number of more digits than Python converts
        return Line(number, {}, f"is no row: {_first_words(error)}", len(line))
    if not isinstance(value, dict):
        return Line(number, {}, f"is not a JSON object: {snippet(text)}", len(line))
    nested = text.count("[") + text.count("{") > DEEPEST
    wrong = _fault(value, nested, _HALF_PAIR.search(text) is not None)
    return Line(number, {} if wrong else value, wrong, len(line))


def _of_list(where: str, path: Path) -> Iterator[Line]:
    try:
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode()
        values = json.loads(text, object_pairs_hook=_Pairs.of)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it."
        ) from error
    except RecursionError as error:
        raise InputError(f"{where} is not a list of rows: it is nested too deeply.") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise InputError(f"{where} is not a list of rows: {_first_words(error)}.") from error
    halves = _HALF_PAIR.search(text) is not None
    for value in values:
        if isinstance(value, dict):
            fault = _fault(value, True, halves)
            yield Line(0, {} if fault else value, fault)
        else:
            yield Line(0, {}, f"is not a JSON object: {snippet(str(value))}")


def _fault(row: dict[str, Any], nested: bool, halves: bool) -> str | None:
    """What is wrong with an object that may be nested too deeply, or hold half a surrogate pair."""
    if nested and _depth(row) > DEEPEST:
        return f"is nested more than {DEEPEST} deep"
    if halves and not is_text(json.dumps(row, ensure_ascii=False)):
        return "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text"
    return None


def _first_words(error: ValueError) -> str:
    return str(error).split(";")[0]


class _Pairs:
    """Makes dicts of JSON objects, in which no key may stand twice: readers differ on which one counts."""

    @staticmethod
    def of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {snippet(twice)} is there twice")
        return made


def _depth(value: object) -> int:
    """How many lists and objects lie inside each other in ``value``, counted no further than needed."""
    level = [value]
    for depth in count():
        level = [
            inner
            for item in level
            if isinstance(item, (list, dict))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level or depth > DEEPEST:
            return depth
    raise AssertionError("count() ends nowhere")


def read_csv(where: str, path: Path) -> Iterator[Line]:
    """The rows of a CSV file, every cell text as written. Raises InputError for a header that names none.

    And for a malformed row of several lines: what a stray quote took in may be all the rows that follow, so
    that it is not one row to leave out.
    """
    csv.field_size_limit(2**31 - 1)  # a row may hold a long document
    with open(path, "rb") as file:
        _check_encoding(where, file)
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
        return Line(number, {}, f"is not UTF-8 text{_in_windows_1252(_bytes_of(row))}", size)
    return Line(number, dict(zip(header, row, strict=True)), None, size)


def no_header(names: Iterable[str]) -> str:
    """A sentence for messages where the names of columns look like a row; else nothing."""
    if not any(map(_is_value, names)):
        return ""
    return (
        "They look like a row: put a line before it that names the columns, such as prompt,response, or "
        "instruction,context,response."
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
        told = _in_windows_1252(_bytes_of(header)) or ". Convert the file"
        raise InputError(f"{where}: its first line is not UTF-8 text{told}.")
    if len(header) == 1 and (other := _other_divider(path)):
        raise InputError(
            f"{where}: its first line is one column, {snippet(header[0])}: are columns divided by {other!r}? "
            "Commas are read. This converts it: python -c 'import csv, sys; csv.writer(sys.stdout)"
            f".writerows(csv.reader(sys.stdin, delimiter={json.dumps(other)}))' "
            f"< {shlex.quote(str(path))} > new.csv"
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


def _in_windows_1252(raw: bytes) -> str:
    """How text that is no UTF-8 reads in the encoding that it then mostly has, and how to convert it."""
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    start = max(0, next((i for i, letter in enumerate(text) if not letter.isascii()), 0) - 20)
    return (
        f" (as Windows-1252 it reads {snippet(text[start:])}; if that is right, iconv -f WINDOWS-1252 "
        "-t UTF-8 converts the file)"
    )


def _check_encoding(where: str, file: IO[bytes]) -> None:
    head = file.read(4)
    if head.startswith(_UTF16) or (b"\0" in head and head.strip(b"\0")):
        raise InputError(f"{where} looks like UTF-16 or UTF-32 text. Convert it to UTF-8.")
    file.seek(0)


def _begins(file: IO[bytes]) -> bytes:
    """The first bytes of ``file`` that are no blanks."""
    start = file.read(4096).removeprefix(codecs.BOM_UTF8)
    return start.lstrip()[:1]


def is_text(value: str) -> bool:
    """Whether ``value`` can be written as UTF-8: it holds no half of a surrogate pair."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def snippet(text: str) -> str:
    """The beginning of ``text`` for a message, control characters and the like escaped."""
    text = text.strip()
    return repr(text if len(text) <= 60 else text[:60] + "…")
