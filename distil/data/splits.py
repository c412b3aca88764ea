"""A data set as three splits of token ids, scored positions and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from distil.config.schema import DataConfig
from distil.data.base import ColumnsConfig, RawSplits, source_of, way_out
from distil.data.columns import Kind, Shape, detect
from distil.data.encode import Encoder
from distil.data.held_out import set_aside
from distil.data.malformed import MALFORMED, BadRow, bad_rows
from distil.data.part import Part
from distil.data.raw_rows import RawRows, columns_of, iterate
from distil.data.row_notes import (
    LOOKED_AT,
    alpaca_note,
    chosen_note,
    context_note,
    copies_note,
    cut_note,
    form_note,
    form_of,
    glued_note,
    shared_note,
    spelt_note,
    template_note,
    unread_notes,
)
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass
class Splits:
    """Rows ready to train on and to evaluate on, and how many were dropped for which reason (all splits).

    Columns: ``input_ids``, ``labels`` (IGNORE_INDEX where unscored, position 0 always), ``prompt_ids`` (what
    generation starts from, never empty), ``prompt``, ``response`` (texts for readers), ``row`` (its number in
    the source's split) and, where the source supplies them, ``slots`` (JSON) and ``log_probability`` (nats;
    None for a row that was cut).
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    dropped: dict[str, int]
    shape: Shape
    """Of the training rows."""
    aside: Collection[str] = ()
    """Splits that the source lacks, set aside from its training rows."""
    bad_rows: list[BadRow] = field(default_factory=list)
    """Of the dropped ones, those that ``data.on_bad_row=skip`` left out."""
    notes: list[str] = field(default_factory=list)
    """What is odd about the rows, and allowed."""


def load_splits(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    allow_network: bool = True,
) -> Splits:
    """The data set that ``config`` names, tokenised. The same config gives the same rows in the same order.

    A split that the source lacks is set aside from the training rows by ``split_seed``, rows of one prompt
    all on one side; it depends on neither cap. A cap keeps a random choice of rows (by ``split_seed``), in
    file order.
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
        parts.append(Part(split, origin.rows, aside.get(split, origin.usable), origin.encoder, cap))
    with way_out():
        bad = [bad for one in read for bad in one.bad]
        dropped: Counter[str] = Counter({MALFORMED: len(bad)} if bad else {})
        encoded = {part.split: part.encode(dropped) for part in parts}
    held_out = {split: encoded[split] for split in own if split != "train"}
    notes = (
        spelt_note([each for part in parts for each in part.spelt]),
        cut_note(config, {part.split: (part.cut, len(encoded[part.split])) for part in parts}),
        shared_note(encoded["train"], held_out),
        chosen_note(encoded["validation"], encoded["test"]),
        copies_note(encoded["test"]),
        form_note({one.split: form_of(one.encoder.shape, one.encoder.chat is not None) for one in read}),
        alpaca_note(train.encoder.shape, train.encoder.chat is not None),
        glued_note(
            train.encoder.shape,
            train.encoder.chat is not None,
            encoded["train"].select(range(min(LOOKED_AT, len(encoded["train"])))),
            tokenizer,
        ),
        template_note(config.prompt_template),
        *unread_notes(config, train.encoder.shape),
        context_note(train.encoder.shape, next(iterate(train.rows, train.usable[:1]), {})),
    )
    said = [note for note in notes if note is not None]
    shape = train.encoder.shape
    counts = dict(sorted(dropped.items()))
    return Splits(**encoded, dropped=counts, shape=shape, aside=missing, bad_rows=bad, notes=said)


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
) -> _Source:
    """Finds the columns and, where they are to be skipped, the malformed rows."""
    columns = columns_of(rows)
    found: dict[int, BadRow] = {}
    while True:
        shape = detect(config, columns, where)
        encoder = Encoder(config, shape, tokenizer, where, lines=getattr(rows, "lines", ()))
        if config.on_bad_row != "skip":
            return _Source(split, rows, encoder, range(len(rows)), [])
        found = {one.row: one for one in bad_rows(encoder, rows, iterate(rows, range(len(rows))))} | found
        if found and len(found) == len(rows):
            first = found[min(found)]
            raise InputError(f"{where} holds only malformed rows: {first}. Give a set with rows.")
        usable = [number for number in range(len(rows)) if number not in found]
        kept = columns_of(rows, usable)
        if not found or kept == columns or detect(config, kept, where) == shape:
            return _Source(split, rows, encoder, usable, [found[number] for number in sorted(found)])
        columns = kept  # a row that is left out has no say in what the others hold


def encode_rows(
    config: ColumnsConfig,
    rows: RawRows,
    tokenizer: PreTrainedTokenizerBase,
    where: str,
    ending: str = "",
    headings: bool | None = None,
) -> tuple[Dataset, list[str]]:
    """All of ``rows`` that can be used, and a note on those that cannot, or not as they are.

    Args:
        config: which columns are what, and how rows become tokens.
        rows: of any source.
        tokenizer: of the run.
        where: how messages name the source.
        ending: closes prompts that are written as they are, where they lack it.
        headings: whether prompts get those of Alpaca; None: by the name of their column.
    """
    one = _read(config, "test", rows, tokenizer, where)
    shape = one.encoder.shape
    if headings is not None and shape.kind is Kind.PAIR and shape.template is None:
        shape = replace(shape, headings=headings)
    encoder = Encoder(config, shape, tokenizer, where, ending, one.encoder.lines)
    dropped: Counter[str] = Counter({MALFORMED: len(one.bad)} if one.bad else {})
    part = Part("test", rows, one.usable, encoder, None)
    encoded = part.encode(dropped)
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
    notes = (
        f"Rows left out: {told}." if told else None,
        cut_note(config, {"given": (part.cut, len(encoded))}),
        spelt_note(part.spelt),
    )
    return encoded, [note for note in notes if note is not None]
