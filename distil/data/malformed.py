"""Malformed rows: found before anything is set aside, so that the others are used as if alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from distil.data.base import MalformedRow, Row, place_of
from distil.data.encode import Encoder

MALFORMED = "malformed"
"""The reason under which they are counted."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: of which source, its line there (0: rows are not lines), its number, why."""

    where: str
    line: int
    row: int
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {place_of(self.line, self.row)} {self.why}"

    def record(self) -> dict[str, Any]:
        """As a line of ``bad_rows.jsonl``."""
        line = {"line": self.line} if self.line else {}
        return {"where": self.where, **line, "row": self.row, "why": self.why}


def bad_rows(encoder: Encoder, rows: Any, each: Iterable[Row]) -> list[BadRow]:
    """Those among ``rows`` (``each``: one by one) that their reader or the encoder refuses, in order."""
    faults: dict[int, str] = getattr(rows, "faults", {})
    found = []
    for number, row in enumerate(each):
        why = faults.get(number) or _why(encoder, row, number)
        if why is not None:
            found.append(BadRow(encoder.where, encoder.lines[number] if encoder.lines else 0, number, why))
    return found


def _why(encoder: Encoder, row: Row, number: int) -> str | None:
    try:
        encoder.check(row, number)
        extras(row, encoder.place(number))
    except MalformedRow as error:
        return str(error).removeprefix(encoder.place(number)).lstrip(":, ")
    return None


def extras(row: Row, where: str) -> dict[str, Any]:
    """What a row brings beside its text: ``slots`` as JSON, ``log_probability`` in nats.

    Raises MalformedRow where they are no such things.
    """
    found: dict[str, Any] = {}
    slots = row.get("slots")
    if slots is not None:
        found["slots"] = _json_object(slots, where)
    given = row.get("log_probability")
    if given is not None:
        try:
            found["log_probability"] = float(given)
        except (TypeError, ValueError, OverflowError):
            raise MalformedRow(f"{where}: log_probability is no number: {str(given)[:60]!r}.") from None
    return found


def _json_object(slots: object, where: str) -> str:
    try:
        text = slots if isinstance(slots, str) else json.dumps(slots, ensure_ascii=False)
        value = json.loads(text)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MalformedRow(f"{where}: slots is no JSON object: {str(slots)[:60]!r}.")
    return text
