"""A user's data set, in any of its forms, as the rows that the engine trains on and scores."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice
from typing import TYPE_CHECKING, Any, TypeAlias

from distil.api.errors import ArgumentError, require
from distil.api.forms import plain_rows
from distil.config.schema import DataConfig
from distil.data.columns import Kind, Shape, detect, likely_pair, listed
from distil.data.encode import Encoder
from distil.data.encoded import Dropped
from distil.data.hf import HfConfig
from distil.data.raw_rows import BATCH
from distil.data.row_notes import context_note
from distil.types import IGNORE_INDEX, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

BATCHED = "its rows came in batches"

MAPPED = (
    'dataset = dataset.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=512), '
    "batched=True)"
)

ADD_PROMPTS = """GKD lets the student go on from prompts. Add them:
    def add_prompts(rows):
        rows["prompt_input_ids"] = [ids[:32] for ids in rows["input_ids"]]
        rows["prompt_attention_mask"] = [mask[:32] for mask in rows["attention_mask"]]
        return rows
    dataset = dataset.map(add_prompts, batched=True)
or give `labels` that are -100 on each row's prompt; lambda_gkd=1 trains without the student's own text."""


class TokenIds:
    """Stands in for a tokenizer where rows are token ids already: knows how many there are, and no text."""

    pad_token_id = None
    chat_template = None
    all_special_ids: Sequence[int] = ()
    all_special_tokens: Sequence[str] = ()

    def __init__(self, size: int, bos_token_id: int | None = None) -> None:
        self.size = size
        self.bos_token_id = bos_token_id
        self.eos_token_id = 0
        self.added_tokens_decoder: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.size

    def get_vocab(self) -> dict[str, int]:
        """Its largest id, under no name."""
        return {"": self.size - 1}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """No text."""
        return ""


def score_of(columns: Iterable[str]) -> str:
    """``data.score`` for rows with these columns: tokens without labels are scored all of them, as
    ``DataCollatorForLanguageModeling`` would."""
    columns = set(columns)
    return "all" if "input_ids" in columns and "labels" not in columns else "response"


@dataclass(frozen=True)
class RawRows:
    """A data set as it came, read once: rows as plain values, columns, and what the caller calls it."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    columns: list[str]
    rest: Iterator[Mapping[str, Any]] | None = None
    """Of a stream that is read as far as ``max_steps`` see: what follows, in place of rows that drop out."""
    untold: set[str] = field(default_factory=set)
    """What no command line says of the rows, as far as they were read."""


def raw_rows(dataset: Any, name: str, limit: int | None = None) -> RawRows:
    """Read ``dataset``: a ``datasets.Dataset`` or ``IterableDataset``, a torch one, a ``DataLoader``, or a
    list of dicts. Of a stream: ``limit`` rows, and more as some drop out.

    Raises ArgumentError for anything else, and where it is empty.
    """
    source = plain_rows(dataset, name)
    rows = list(islice(source, limit))
    require(bool(rows), f"{name} is empty: give a data set with rows.")
    names = getattr(dataset, "column_names", None)
    columns = list(names) if names else list(dict.fromkeys(key for row in rows for key in row))
    batched = len(rows) != getattr(dataset, "num_rows", len(rows))
    return RawRows(name, rows, columns, None if limit is None else source, {BATCHED} if batched else set())


def shape_of(raw: RawRows) -> Shape:
    """The shape of its rows, by their columns. Raises ArgumentError where none is known."""
    try:
        return detect(HfConfig(), raw.columns, raw.name)
    except InputError:
        raise ArgumentError(
            f"{raw.name} has no column to learn from. {listed(raw.columns)} {_to_name(raw.columns)}"
        ) from None


def _to_name(columns: Sequence[str]) -> str:
    """How rows of these columns are made readable, in the reader's own names where they are told apart."""
    pair = likely_pair(columns) or ("my_question", "my_answer")
    prompt, response = (json.dumps(name, ensure_ascii=False) for name in pair)
    return f"""Call them `prompt` and `response` (or one `text`), and give a tokenizer:
    dataset = dataset.rename_columns({{{prompt}: "prompt", {response}: "response"}})
    rows = [{{"prompt": row[{prompt}], "response": row[{response}]}} for row in rows]  # of a list
    KnowledgeDistillation(teacher, student, config, tokenizer)
or tokenise them first:
    {MAPPED}"""


def read_rows(
    raw: RawRows,
    *,
    max_length: int,
    tokenizer: PreTrainedTokenizerBase | None,
    ids: TokenIds,
    wants_prompts: bool = False,
) -> list[dict[str, Any]]:
    """Rows of ``input_ids``, ``labels`` (-100 where unscored) and ``prompt_ids``, as the runner makes them.

    Args:
        raw: with ``input_ids`` (padding is told by ``attention_mask`` and taken off), with or without
            ``labels`` and ``prompt_input_ids``; or with text in columns of well-known names.
        tokenizer: for rows of text.
        ids: what is known of token ids without one.
        wants_prompts: whether every row must say what the student is to go on from.

    Rows of which nothing can be scored are left out, counted in a warning. Raises ArgumentError.
    """
    name, columns = raw.name, raw.columns
    config = HfConfig(max_length=max_length, score=score_of(columns))
    shape = shape_of(raw)
    reader: Any = tokenizer
    if shape.kind is Kind.TOKENS:
        reader = ids
    elif tokenizer is None:
        raise ArgumentError(
            f"{name} holds text (columns: {', '.join(columns)}), no tokens. Give a tokenizer:\n"
            "    KnowledgeDistillation(teacher, student, config, tokenizer)\n"
            f"or tokenise it first:\n    {MAPPED}"
        )
    note = context_note(shape, raw.rows[0], "Call the one that a prompt is about `context`.")
    if note is not None:
        logger.warning("%s: %s", name, note)
    check = _check_prompts if wants_prompts and shape.kind is Kind.TOKENS else None
    return _encode(Encoder(config, shape, reader, name), raw, check)


Check: TypeAlias = Callable[[Sequence[Mapping[str, Any]], int, RawRows], None]


def _encode(encoder: Encoder, raw: RawRows, check: Check | None) -> list[dict[str, Any]]:
    name, wanted = raw.name, len(raw.rows)
    kept: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    cut = seen = 0
    for batch in _batches(raw, lambda: len(kept)):
        if check is not None:
            check(batch, seen, raw)
        for row in encoder.encode(batch, range(seen, seen + len(batch))):
            if isinstance(row, Dropped):
                dropped[row.reason] += 1
            else:
                cut += row.cut > 0
                prompt = row.ids[: row.prompt]
                kept.append({"input_ids": row.ids, "labels": row.labels, "prompt_ids": prompt})
        seen += len(batch)
    reasons = ", ".join(f"{reason.replace('data.', '')} ({n})" for reason, n in dropped.most_common())
    require(bool(kept), f"{name}: no row has a token to learn from: {reasons}. {_way_out(encoder.config)}")
    if dropped:
        logger.warning("%s: %d of %d rows are left out: %s.", name, dropped.total(), seen, reasons)
    if cut:
        length = encoder.config.max_length
        logger.warning("%s: %d of %d rows lose what is beyond max_length=%d.", name, cut, seen, length)
    return kept[:wanted]


def _batches(raw: RawRows, kept: Callable[[], int]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """``raw`` in batches; of a stream as many more as lack, as long as usable ones come."""
    rows, had = raw.rows, -1
    while rows and kept() > had:
        had = kept()
        yield from (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
        lacking = kept() < len(raw.rows) and raw.rest is not None
        rows = list(islice(raw.rest or (), len(raw.rows))) if lacking else []


def _way_out(config: DataConfig) -> str:
    return f"Rows need two tokens at least, one of them scored within max_length={config.max_length}."


def cells(row: Mapping[str, Any], column: str) -> Sequence[Any]:
    """The list in ``column``; empty where there is none: what is there instead is refused when it is read."""
    found: Any = row.get(column)
    found = found.tolist() if hasattr(found, "tolist") else found
    return found if isinstance(found, (list, tuple)) else []


def _check_prompts(rows: Sequence[Mapping[str, Any]], start: int, raw: RawRows) -> None:
    """Raise ArgumentError unless each of these rows, the first of number ``start``, says its prompt."""
    if "prompt_input_ids" in raw.columns:
        for number, row in enumerate(rows, start):
            mask = cells(row, "prompt_attention_mask")
            if not cells(row, "prompt_input_ids") or (mask and not any(mask)):
                raise ArgumentError(
                    f"{raw.name}, row {number}: prompt_input_ids holds no real token, so there is nothing to "
                    "go on from. Rows padded on the left start with padding: take the prompt after it."
                )
        return
    if not all(map(_labels_tell_prompt, rows)):
        raise ArgumentError(f"{raw.name} has no column prompt_input_ids. {ADD_PROMPTS}")


def _labels_tell_prompt(row: Mapping[str, Any]) -> bool:
    """Whether ``labels`` leave the beginning of a row unscored, of its real tokens. A row that has none, or
    whose lists do not fit each other, is not judged here."""
    ids = cells(row, "input_ids")
    labels = ids if row.get("labels") is None else cells(row, "labels")
    mask = [1] * len(ids) if row.get("attention_mask") is None else cells(row, "attention_mask")
    if len({len(ids), len(labels), len(mask)}) > 1:
        return True
    real = list(compress(labels, mask))
    return not real or real[0] == IGNORE_INDEX
