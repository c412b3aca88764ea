"""A user's data set, in any of its forms, as the rows that the engine trains on and scores."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.api.errors import ArgumentError, require
from distil.config.schema import DataConfig
from distil.data.columns import Kind, detect
from distil.data.encode import Dropped, Encoder
from distil.data.hf import HfConfig
from distil.data.local import FORMATS
from distil.types import IGNORE_INDEX, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

BATCH = 1000
"""Rows encoded at once."""

TOKENISE = """Tokenise it first:
    dataset = dataset.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=512), batched=True)
or call its columns `prompt` and `response` (or one `text`), and give a tokenizer:
    dataset = dataset.rename_columns({"my_question": "prompt", "my_answer": "response"})
    KnowledgeDistillation(teacher, student, config, tokenizer)"""

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


def raw_rows(dataset: Any, name: str, limit: int | None = None) -> RawRows:
    """Read ``dataset``, ``limit`` rows at most: a ``datasets.Dataset`` or ``IterableDataset``, a torch one, a
    ``DataLoader``, or a list of dicts. Raises ArgumentError for anything else, and where it is empty."""
    rows = list(islice(plain_rows(dataset, name), limit))
    require(bool(rows), f"{name} is empty: give a data set with rows.")
    names = getattr(dataset, "column_names", None)
    return RawRows(
        name, rows, list(names) if names else list(dict.fromkeys(key for row in rows for key in row))
    )


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
    try:
        shape = detect(config, columns, name)
    except InputError:
        listed = ", ".join(columns) or "none"
        raise ArgumentError(
            f"{name} has no column to learn from. Its columns: {listed}. {TOKENISE}"
        ) from None
    reader: Any = tokenizer
    if shape.kind is Kind.TOKENS:
        reader = ids
        if wants_prompts:
            _check_prompts(raw.rows, columns, name)
    elif tokenizer is None:
        raise ArgumentError(f"{name} holds text (columns: {', '.join(columns)}), no tokens. {TOKENISE}")
    return _encode(Encoder(config, shape, reader, name), raw.rows, name)


def _encode(encoder: Encoder, rows: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        for row in encoder.encode(batch, range(start, start + len(batch))):
            if isinstance(row, Dropped):
                dropped[row.reason] += 1
            else:
                prompt = row.ids[: row.prompt]
                kept.append({"input_ids": row.ids, "labels": row.labels, "prompt_ids": prompt})
    reasons = ", ".join(f"{reason.replace('data.', '')} ({n})" for reason, n in dropped.most_common())
    require(bool(kept), f"{name}: no row has a token to learn from: {reasons}. {_way_out(encoder.config)}")
    if dropped:
        logger.warning("%s: %d of %d rows are left out: %s.", name, dropped.total(), len(rows), reasons)
    return kept


def _way_out(config: DataConfig) -> str:
    return f"Rows need two tokens at least, one of them scored within max_length={config.max_length}."


def _check_prompts(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], name: str) -> None:
    if "prompt_input_ids" in columns:
        for number, row in enumerate(rows):
            mask = row.get("prompt_attention_mask")
            ids = row.get("prompt_input_ids")
            if ids is None or len(ids) == 0 or (mask is not None and not any(mask)):
                raise ArgumentError(
                    f"{name}, row {number}: prompt_input_ids holds no real token, so there is nothing to go "
                    "on from. Rows padded on the left start with padding: take the prompt after it."
                )
        return
    if "labels" in columns and all(
        int(row["labels"][0]) == IGNORE_INDEX for row in rows if len(row["labels"])
    ):
        return
    raise ArgumentError(f"{name} has no column prompt_input_ids. {ADD_PROMPTS}")


# ---- forms of data sets


def plain_rows(dataset: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """The rows of ``dataset`` one by one, as plain values."""
    columns = list(dataset.values()) if isinstance(dataset, Mapping) else []
    if columns and all(isinstance(c, list) and not any(isinstance(x, Mapping) for x in c) for c in columns):
        raise ArgumentError(f"{name} is a dict of lists: give datasets.Dataset.from_dict({name}).")
    if type(dataset).__module__.startswith("pandas"):
        raise ArgumentError(
            f"{name} is a {type(dataset).__name__}: give datasets.Dataset.from_pandas({name})."
        )
    if isinstance(dataset, (str, Path)) and (kind := FORMATS.get(Path(dataset).suffix.lower())):
        raise ArgumentError(
            f"{name} is the name of a file. Give its rows: "
            f'datasets.load_dataset("{kind}", data_files="{dataset}", split="train").'
        )
    if isinstance(dataset, Mapping):
        raise ArgumentError(_of_mapping(dataset, name))
    if dataset is None or isinstance(dataset, (str, bytes)) or not _has_rows(dataset):
        what = repr(dataset) if isinstance(dataset, str) else f"a {type(dataset).__name__}"
        raise ArgumentError(
            f"{name} is {what}: give a data set, as datasets.load_dataset(…) or load_from_disk(…) returns."
        )
    loaded = getattr(dataset, "with_format", None)
    if loaded is not None and hasattr(dataset, "features"):
        dataset = loaded(None)  # plain lists, whatever format the user's loop wants
    for row in dataset if hasattr(dataset, "__iter__") else (dataset[i] for i in range(len(dataset))):
        if _is_batch(row):
            yield from _of_batch(row)
        elif isinstance(row, Mapping):
            yield row
        else:
            raise ArgumentError(
                f"{name} holds rows of type {type(row).__name__}: give dicts with input_ids or text "
                '({"text": …}, {"prompt": …, "response": …}), or a datasets.Dataset.'
            )


def _of_mapping(dataset: Mapping[str, Any], name: str) -> str:
    """What to give in place of a mapping: one row, one batch, or splits."""
    if "input_ids" in dataset:
        rows = f"datasets.Dataset.from_dict({{key: list(value) for key, value in {name}.items()}})"
        return f"{name} is one batch, as a tokenizer returns it. Give its rows: {rows}."
    if all(isinstance(value, (str, int, float, list)) for value in dataset.values()):
        return f"{name} is one row: give a list of rows, [{name}]."
    held_out = [one for one in dataset if str(one) in ("validation", "test")]
    split = held_out[0] if name == "eval_dataset" and held_out else next(iter(dataset))
    splits = ", ".join(map(str, dataset))
    return f"{name} is a {type(dataset).__name__} of splits ({splits}): give one, {name}=data[{split!r}]."


def _has_rows(dataset: Any) -> bool:
    return hasattr(dataset, "__iter__") or (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"))


def _is_batch(row: Any) -> bool:
    """Whether ``row`` is a batch of a DataLoader: tensors of two dimensions."""
    ids = row.get("input_ids") if isinstance(row, Mapping) else None
    return getattr(ids, "ndim", 1) == 2


def _of_batch(batch: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    plain = {key: value.tolist() if hasattr(value, "tolist") else list(value) for key, value in batch.items()}
    for values in zip(*plain.values(), strict=True):
        yield dict(zip(plain, values, strict=True))
