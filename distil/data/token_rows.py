"""Rows that are tokens already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distil.data.base import MalformedRow, Row
from distil.data.codec import Codec
from distil.data.encoded import EMPTY_TEXT, Dropped, Encoded
from distil.types import IGNORE_INDEX


def token_row(row: Row, where: str, codec: Codec, score: str) -> Encoded | Dropped:
    """A row that is tokens already; its own padding (attention_mask 0) is taken off, nothing is added.

    Its ``labels`` say what is scored; without them it is what follows ``prompt_input_ids``. ``score``:
    ``data.score``. Raises MalformedRow for columns that do not fit each other or the tokenizer.
    """
    real = _integers(row.get("attention_mask"), "attention_mask", where)
    ids = _integers(row.get("input_ids"), "input_ids", where) or []
    given = _integers(row.get("labels"), "labels", where)
    prompt_ids = _prompt_ids(row, where)
    for name, other in (("attention_mask", real), ("labels", given)):
        if other is not None and len(other) != len(ids):
            raise MalformedRow(f"{where}: {name} has {len(other)} entries, input_ids {len(ids)}.")
    labels = list(ids) if given is None else given
    if real is not None:
        labels = [label for label, is_real in zip(labels, real, strict=True) if is_real]
        ids = [token_id for token_id, is_real in zip(ids, real, strict=True) if is_real]
    if not ids:
        return Dropped(EMPTY_TEXT)
    _check_known(ids, labels, where, len(codec.tokenizer))
    if prompt_ids is not None:
        if ids[: len(prompt_ids)] != prompt_ids:
            raise MalformedRow(f"{where}: input_ids does not begin with prompt_input_ids.")
        if given is None:  # labels say alone what is scored
            labels[: len(prompt_ids)] = [IGNORE_INDEX] * len(prompt_ids)
    prompt = len(prompt_ids or ()) or next((i for i, k in enumerate(labels) if k != IGNORE_INDEX), 0)
    if score == "all":
        labels = list(ids)
    texts = codec.text(ids[:prompt]), codec.text(ids[prompt:])
    return Encoded(ids, labels, prompt, codec.kept_start(ids[:prompt]), *texts)


def _check_known(ids: Sequence[int], labels: Sequence[int], where: str, known: int) -> None:
    """Raise MalformedRow for ids that a tokenizer of ``known`` ids has not."""
    for column, values, way_out in (
        ("input_ids", ids, "Was the set tokenised for another model? Give its text instead."),
        ("labels", (k for k in labels if k != IGNORE_INDEX), f"{IGNORE_INDEX} marks what is not scored."),
    ):
        bad = next((token_id for token_id in values if not 0 <= token_id < known), None)
        if bad is not None:
            raise MalformedRow(
                f"{where}: {column} holds {bad}, the model's tokenizer knows 0 to {known - 1}. {way_out}"
            )


def _prompt_ids(row: Row, where: str) -> list[int] | None:
    """``prompt_input_ids`` without the padding that ``prompt_attention_mask`` tells."""
    ids = _integers(row.get("prompt_input_ids"), "prompt_input_ids", where)
    real = _integers(row.get("prompt_attention_mask"), "prompt_attention_mask", where)
    if ids is None or real is None:
        return ids
    if len(real) != len(ids):
        raise MalformedRow(
            f"{where}: prompt_attention_mask has {len(real)} entries, prompt_input_ids {len(ids)}."
        )
    return [token_id for token_id, is_real in zip(ids, real, strict=True) if is_real]


def _integers(value: Any, column: str, where: str) -> list[int] | None:  # Any: a cell
    if value is None:
        return None
    numbers = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(numbers, (list, tuple)) or not all(isinstance(n, (int, bool)) for n in numbers):
        raise MalformedRow(f"{where}: column {column} is not a list of whole numbers: {str(value)[:60]!r}.")
    return [int(n) for n in numbers]
