"""Rows of one split, encoded and counted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distil.data.base import Row
from distil.data.columns import Kind
from distil.data.encode import Encoder
from distil.data.encoded import PROMPT_TOO_LONG, Dropped, Encoded
from distil.data.malformed import extras
from distil.data.raw_rows import BATCH, RawRows, columns_of, iterate
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset, Features


@dataclass
class Part:
    """One split to be: which rows of which source, and how they are encoded."""

    split: str
    rows: RawRows
    numbers: Sequence[int]
    encoder: Encoder
    cap: int | None
    spelt: list[tuple[str, str]] = field(default_factory=list)
    """Of its rows that spell a special token: which, and the row's place."""
    cut: int = 0
    """How many of its rows lost tokens to ``data.max_length``, once it is encoded."""

    @property
    def size(self) -> int:
        """How many rows it will have at most."""
        return len(self.numbers) if self.cap is None else min(self.cap, len(self.numbers))

    def encode(self, dropped: Counter[str]) -> Dataset:
        """Its rows as a Dataset; ``dropped`` counts those left out."""
        from datasets import Dataset
        from datasets.table import InMemoryTable, concat_tables

        if not len(self.numbers):
            raise InputError(f"{self.encoder.where} holds no rows. Give a set with rows.")
        numbers = list(self.numbers)
        if self.size < len(numbers):
            random.Random(self.encoder.config.split_seed).shuffle(numbers)
        tables, reasons, kept = [], [], 0
        schema = _features(columns_of(self.rows)).arrow_schema
        for start in range(0, len(numbers), BATCH):
            rows, batch_reasons = self._batch(numbers[start : start + BATCH], self.size - kept)
            kept += len(rows)
            reasons += batch_reasons
            columns = {name: [row.get(name) for row in rows] for name in schema.names}
            tables.append(InMemoryTable.from_pydict(columns, schema=schema))
            if kept == self.size:
                break
        dropped.update(row.reason for row in reasons)
        if not kept:
            raise InputError(_nothing_left(self.encoder, self.split, reasons))
        encoded = Dataset(concat_tables(tables))
        order = sorted(range(kept), key=encoded["row"][:].__getitem__)
        return (
            encoded if order == list(range(kept)) else Dataset(InMemoryTable(encoded.data.table.take(order)))
        )

    def _batch(self, numbers: Sequence[int], wanted: int) -> tuple[list[dict[str, Any]], list[Dropped]]:
        """The first ``wanted`` usable rows among these, and what was dropped before them."""
        kept: list[dict[str, Any]] = []
        reasons: list[Dropped] = []
        raw = list(iterate(self.rows, numbers))
        for number, row, encoded in zip(numbers, raw, self.encoder.encode(raw, numbers), strict=True):
            if isinstance(encoded, Dropped):
                reasons.append(encoded)
            else:
                place = self.encoder.place(number)
                kept.append(_finished(encoded, row, number, place))
                self._note_spelt(encoded, place)
                self.cut += encoded.cut > 0
            if len(kept) == wanted:
                break
        return kept, reasons

    def _note_spelt(self, encoded: Encoded, place: str) -> None:
        kind = self.encoder.shape.kind
        if kind is Kind.TOKENS:  # whose ids say what they are
            return
        between = "" if kind is Kind.TEXT else "\n"  # raw text is cut anywhere
        token = self.encoder.codec.spelt(f"{encoded.prompt_text}{between}{encoded.response_text}")
        if token is not None:
            self.spelt.append((token, place))


def _finished(encoded: Encoded, row: Row, number: int, where: str) -> dict[str, Any]:
    finished = {
        "input_ids": encoded.ids,
        "labels": encoded.labels,
        "prompt_ids": encoded.ids[: encoded.prompt],
        "prompt": encoded.prompt_text,
        "response": encoded.response_text,
        "row": number,
    }
    unknown = {"log_probability": None} if encoded.cut else {}  # that of the whole response no more
    return finished | extras(row, where) | unknown


def _features(source_columns: Sequence[str]) -> Features:
    """The columns of a split: ids in 32 bits, and of the optional ones those that the source has."""
    from datasets import Features, List, Value

    ids, text = List(Value("int32")), Value("string")
    fields = {"input_ids": ids, "labels": ids, "prompt_ids": ids, "prompt": text, "response": text}
    optional = {"slots": text, "log_probability": Value("float64")}
    present = {name: kind for name, kind in optional.items() if name in source_columns}
    return Features({**fields, "row": Value("int64"), **present})


def _nothing_left(encoder: Encoder, split: str, reasons: Sequence[Dropped]) -> str:
    config = encoder.config
    counts = Counter(row.reason for row in reasons)
    shortest = min((row.prompt_tokens for row in reasons if row.reason == PROMPT_TOO_LONG), default=0)
    if shortest and set(counts) == {PROMPT_TOO_LONG}:
        return (
            f"data.max_length={config.max_length} leaves no {split} row a response: the shortest prompt has "
            f"{shortest} tokens. Set data.max_length above {shortest}, or data.truncation=prompt_left."
        )
    listed = ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())
    return (
        f"{encoder.where}: no {split} row has a scored token. Dropped: {listed}. "
        f"Look at the columns, data.max_length={config.max_length} and data.truncation={config.truncation}."
    )
