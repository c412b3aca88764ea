"""A data set as three splits of token ids, scored positions and texts."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from distil.config.schema import DataConfig
from distil.data.base import ColumnsConfig, RawSplits, Row, source_of, way_out
from distil.data.columns import Kind, Shape, detect
from distil.data.encode import PROMPT_TOO_LONG, Dropped, Encoded, Encoder
from distil.data.malformed import MALFORMED, BadRow, bad_rows, extras
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from transformers import PreTrainedTokenizerBase

BATCH = 1000
"""Rows tokenised at once."""
Report = Callable[[int, int], None]
"""Called with (done, total)."""
RawRows = Any
"""A ``datasets.Dataset`` or a sequence of dicts: both give rows by number."""


@dataclass
class Splits:
    """Rows ready to train on and to judge by, and how many were dropped for which reason (all splits).

    Columns: ``input_ids``, ``labels`` (IGNORE_INDEX where unscored, position 0 always), ``prompt_ids`` (what
    generation starts from, never empty), ``prompt``, ``response`` (texts for readers), ``row`` (its number in
    the source's split) and, where the source supplies them, ``slots`` (JSON) and ``log_probability`` (nats).
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    dropped: dict[str, int]
    bad_rows: list[BadRow] = field(default_factory=list)
    """Of the dropped ones, those that ``data.on_bad_row=skip`` left out."""
    notes: list[str] = field(default_factory=list)
    """What is odd about the rows, and allowed."""


def load_splits(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    report: Report | None = None,
    *,
    allow_network: bool = True,
) -> Splits:
    """The data set that ``config`` names, tokenised. The same config gives the same rows in the same order.

    A split that the source lacks is set aside from the training rows by ``split_seed``, rows of one prompt
    all on one side; it depends on neither cap. A cap keeps a random choice of rows (by ``split_seed``), in
    file order. ``report`` is called with (rows done, rows at most) as they are tokenised.
    Raises InputError for a source that cannot be read, and where a split is left without a row.
    """
    assert isinstance(config, ColumnsConfig), f"data={config.name}: its config must subclass ColumnsConfig"
    source = source_of(config)
    with way_out():
        given = _given(source.rows(allow_network))
    read = [_read(config, split, rows, tokenizer, source.where(split)) for split, rows in given]
    own = {one.split: one for one in read}
    train = own["train"]
    missing = [split for split in ("validation", "test") if split not in own]
    aside = set_aside(train.rows, train.encoder.shape, missing, config, train.encoder.where, train.usable)
    parts = []
    for split in ("train", "validation", "test"):
        origin = own.get(split, train)
        cap = config.max_train_rows if split == "train" else config.max_eval_rows
        parts.append(_Part(split, origin.rows, aside.get(split, origin.usable), origin.encoder, cap))
    with way_out():
        return _encoded(parts, [bad for one in read for bad in one.bad], report)


def _encoded(parts: Sequence[_Part], bad: list[BadRow], report: Report | None) -> Splits:
    total, done = sum(part.size for part in parts), 0
    dropped: Counter[str] = Counter({MALFORMED: len(bad)} if bad else {})
    loaded = []
    for part in parts:
        loaded.append(
            part.encode(dropped, None if report is None else partial(_advance, report, done, total))
        )
        done += part.size
    train, validation, test = loaded
    return Splits(train, validation, test, dict(sorted(dropped.items())), bad, _spelt(parts))


def _spelt(parts: Sequence[_Part]) -> list[str]:
    """A note on rows whose text spells special tokens, which are characters there."""
    found = [each for part in parts for each in part.spelt]
    if not found:
        return []
    token, where = found[0]
    rows = "1 row spells special tokens" if len(found) == 1 else f"{len(found):,} rows spell special tokens"
    return [
        f"{rows} of the tokenizer, such as {token} in {where}: they are text there, not tokens. For rows "
        "that went through a template already: data.split_special_tokens=false."
    ]


@dataclass
class _Source:
    """The rows that one split's file or set holds, and which of them can be used."""

    split: str
    rows: RawRows
    encoder: Encoder
    usable: Sequence[int]
    bad: list[BadRow]


def _given(raw: RawSplits) -> list[tuple[str, RawRows]]:
    splits = (("train", raw.train), ("validation", raw.validation), ("test", raw.test))
    return [(split, rows) for split, rows in splits if rows is not None]


def _read(
    config: ColumnsConfig,
    split: str,
    rows: RawRows,
    tokenizer: PreTrainedTokenizerBase,
    where: str,
    ending: str = "",
) -> _Source:
    """Finds the columns and, where they are to be skipped, the malformed rows."""
    columns = columns_of(rows)
    found: dict[int, BadRow] = {}
    while True:
        shape = detect(config, columns, where)
        encoder = Encoder(config, shape, tokenizer, where, ending, getattr(rows, "lines", ()))
        if config.on_bad_row != "skip":
            return _Source(split, rows, encoder, range(len(rows)), [])
        found = {one.row: one for one in bad_rows(encoder, rows, _iterate(rows, range(len(rows))))} | found
        if found and len(found) == len(rows):
            first = found[min(found)]
            raise InputError(f"{where} holds only malformed rows: {first}. Give a set with rows.")
        usable = [number for number in range(len(rows)) if number not in found]
        kept = columns_of(rows, usable)
        if not found or kept == columns or detect(config, kept, where) == shape:
            return _Source(split, rows, encoder, usable, [found[number] for number in sorted(found)])
        columns = kept  # a row that is left out has no say in what the others hold


def encode_rows(
    config: ColumnsConfig, rows: RawRows, tokenizer: PreTrainedTokenizerBase, where: str, ending: str = ""
) -> tuple[Dataset, dict[str, int]]:
    """All of ``rows`` that can be used, and how many were dropped for which reason.

    ``ending`` closes prompts that are written as they are, where they lack it.
    """
    one = _read(config, "test", rows, tokenizer, where, ending)
    dropped: Counter[str] = Counter({MALFORMED: len(one.bad)} if one.bad else {})
    encoded = _Part("test", rows, one.usable, one.encoder, None).encode(dropped, None)
    return encoded, dict(sorted(dropped.items()))


def _advance(report: Report, before: int, total: int, rows: int) -> None:
    report(before + rows, total)


def columns_of(rows: RawRows, numbers: Sequence[int] | None = None) -> list[str]:
    """The column names of raw rows, or of these among them; rows of a table have all the same."""
    names = getattr(rows, "column_names", None)
    if names is not None and (numbers is None or hasattr(rows, "select_columns")):
        return list(names)
    each = rows if numbers is None else (rows[number] for number in numbers)
    return list(dict.fromkeys(name for row in each for name in row))


def set_aside(
    rows: RawRows,
    shape: Shape,
    missing: Sequence[str],
    config: ColumnsConfig,
    where: str,
    usable: Sequence[int] | None = None,
) -> dict[str, list[int]]:
    """Row numbers of ``train`` and of each missing split: disjoint, together all rows (or those ``usable``),
    each in file order.

    Rows of one prompt stay together, unless that leaves a split without a row (one prompt for the whole set);
    equal rows always do.
    """
    if not missing:
        return {}
    all_numbers = range(len(rows)) if usable is None else usable
    most = (len(all_numbers) - 1) // len(missing)  # a row at least stays to train on
    wanted = max(1, min(round(config.validation_fraction * len(all_numbers)), most))
    for by_response, oversized in ((False, False), (True, False), (True, True)):
        groups: dict[Any, list[int]] = defaultdict(list)
        for number, key in zip(all_numbers, _keys(rows, shape, by_response, all_numbers), strict=True):
            groups[key].append(number)
        order = list(groups.values())
        random.Random(config.split_seed).shuffle(order)
        parts: dict[str, list[int]] = {}
        size = 1 if oversized else wanted
        for split in missing:
            parts[split] = _take(order, size, oversized)
        parts["train"] = [number for group in order for number in group]
        if all(parts.values()):
            return {split: sorted(numbers) for split, numbers in parts.items()}
    many = len(all_numbers)
    different = f", {len(groups)} of them different" if many > 1 else ""
    raise InputError(
        f"{where} has {many:,} row{'' if many == 1 else 's'}{different}: too few to set aside rows "
        f"for {' and '.join(missing)}. Give more rows, or files of their own (data=jsonl "
        "data.validation_file=… data.test_file=…)."
    )


def _take(groups: list[list[int]], size: int, oversized: bool) -> list[int]:
    """Move whole groups out of ``groups`` until ``size`` rows are together; those too big for the rest stay.

    ``oversized``: where all are too big, the smallest is taken nevertheless.
    """
    taken: list[int] = []
    stay = []
    for group in groups:
        if len(taken) + len(group) <= size:
            taken += group
        else:
            stay.append(group)
    if oversized and not taken and len(stay) > 1:
        taken = stay.pop(min(range(len(stay)), key=lambda index: len(stay[index])))
    groups[:] = stay
    return taken


def _keys(rows: RawRows, shape: Shape, by_response: bool, numbers: Sequence[int]) -> Iterator[Any]:
    """What must not stand on both sides of a split: the prompt of each of these rows (or prompt and
    response)."""
    if shape.kind is Kind.TOKENS:
        whole = by_response or "prompt_input_ids" not in columns_of(rows, numbers)
        columns = ["input_ids" if whole else "prompt_input_ids"]
    elif shape.kind is Kind.MESSAGES:
        columns = [shape.messages or ""]
    elif shape.kind is Kind.TEXT:
        columns = [shape.text or ""]
    else:
        columns = [name for name in (shape.prompt, shape.context) if name] or columns_of(rows)
        columns += [shape.response or ""] if by_response else []
    for row in _iterate(rows, numbers, columns):
        value: Any = [row.get(name) for name in columns]
        if shape.kind is Kind.MESSAGES and not by_response and isinstance(value[0], list):
            value = value[0][:-1]
        yield json.dumps(value, sort_keys=True, default=str)


def _iterate(rows: RawRows, numbers: Sequence[int], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows by number; a ``datasets.Dataset`` is read in batches, and only these columns of it."""
    if not hasattr(rows, "select_columns"):
        yield from (rows[number] for number in numbers)
        return
    view = rows if columns is None else rows.select_columns(list(columns))
    for start in range(0, len(numbers), BATCH):
        batch = view[list(numbers[start : start + BATCH])]
        names = list(batch)
        yield from (dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True))


@dataclass
class _Part:
    """One split to be: which rows of which source, and how they are encoded."""

    split: str
    rows: RawRows
    numbers: Sequence[int]
    encoder: Encoder
    cap: int | None
    spelt: list[tuple[str, str]] = field(default_factory=list)
    """Of its rows that spell a special token: which, and the row's place."""

    @property
    def size(self) -> int:
        """How many rows it will have at most."""
        return len(self.numbers) if self.cap is None else min(self.cap, len(self.numbers))

    def encode(self, dropped: Counter[str], report: Callable[[int], None] | None) -> Dataset:
        """Its rows as a Dataset; ``dropped`` counts those left out, ``report`` hears how many are done."""
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
            if report is not None:
                report(kept)
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
        raw = list(_iterate(self.rows, numbers))
        for number, row, encoded in zip(numbers, raw, self.encoder.encode(raw, numbers), strict=True):
            if isinstance(encoded, Dropped):
                reasons.append(encoded)
            else:
                place = self.encoder.place(number)
                kept.append(_finished(encoded, row, number, place))
                self._note_spelt(encoded, place)
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
    return finished | extras(row, where)


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
