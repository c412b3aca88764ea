"""Rows of text files, read with the standard library: each with its line, or what is wrong with it."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any, overload

from distil.data.converters import of_object
from distil.types import InputError

DEEPEST = 100
"""How many lists and objects a row may hold inside each other."""
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON spells either half of a surrogate pair."""
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
        check_encoding(where, file)
        listed = _begins(file).startswith(b"[")
    if listed:
        try:
            yield from _of_list(where, path)
            return
        except json.JSONDecodeError as error:
            if path.suffix.lower() == ".json":
                raise InputError(f"{where} is not JSON: {error.msg} in line {error.lineno}.") from error
    _check_object(where, path)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if text.strip():
                yield _of_line(number, text)


def _check_object(where: str, path: Path) -> None:
    """Raise InputError for a ``.json`` file that is one object, where its rows can be told from it."""
    if path.suffix.lower() != ".json":
        return
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = json.loads(file.readline())
            if isinstance(first, dict) and file.read(1):
                return  # rows by line
    except (ValueError, RecursionError):
        pass
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return  # its lines are told of
    if isinstance(value, dict) and (way := of_object(path, value)):
        raise InputError(f"{where} is one object, and no list of rows: {way}")


def _of_line(number: int, line: bytes) -> Line:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        told = f"is not UTF-8 text: {error.reason} at its byte {error.start}{in_windows_1252(line)}"
        return Line(number, {}, told, len(line))
    try:
        value = json.loads(text, object_pairs_hook=_Pairs.of)
    except json.JSONDecodeError as error:
        why = error.msg.removesuffix(" at")  # of theirs, some end so
        if why.startswith("Invalid control character") and text[error.pos : error.pos + 1] in "\r\n":
            why = "it ends inside a text,"
        fault = f"is not a JSON object: {snippet(text)} ({why} at its character {error.pos + 1})"
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


def in_windows_1252(raw: bytes) -> str:
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


def check_encoding(where: str, file: IO[bytes]) -> None:
    """Raises InputError for text in UTF-16 or UTF-32; else the file is read from its start again."""
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
