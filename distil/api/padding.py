"""Padding that no ``attention_mask`` tells."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distil.api.rows import RawRows
from distil.types import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def without_padding(raw: RawRows, tokenizer: PreTrainedTokenizerBase | None) -> RawRows:
    """Rows that come padded and without a mask get one: the pad ids at their end, but for a first EOS.

    Rows without padding stay as they are. Where no tokenizer tells how padding looks, what may be some is
    said in a warning.
    """
    if "input_ids" not in raw.columns or "attention_mask" in raw.columns:
        return raw
    if tokenizer is None or tokenizer.pad_token_id is None:
        _warn(raw)
        return raw

    def masked(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "attention_mask": _mask(_plain(row, "input_ids"), tokenizer)}

    rows = [masked(row) for row in raw.rows]
    if raw.rest is None and all(all(row["attention_mask"]) for row in rows):
        return raw
    rest = None if raw.rest is None else map(masked, raw.rest)
    return replace(raw, rows=rows, rest=rest, columns=[*raw.columns, "attention_mask"])


def _plain(row: Mapping[str, Any], column: str) -> Sequence[Any]:
    ids = row.get(column)
    return [] if ids is None else ids.tolist() if hasattr(ids, "tolist") else ids


def _mask(ids: Sequence[Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    end = len(ids)
    while end and ids[end - 1] == tokenizer.pad_token_id:
        end -= 1
    if tokenizer.pad_token_id == tokenizer.eos_token_id and end < len(ids):
        end += 1
    return [1] * end + [0] * (len(ids) - end)


def _warn(raw: RawRows) -> None:
    """Say so where rows have one length and most end in runs of one id that is scored."""
    rows = [_plain(row, "input_ids") for row in raw.rows]
    scored = [_plain(row, "labels") for row in raw.rows]
    runs = Counter(
        ids[-1]
        for ids, labels in zip(rows, scored, strict=True)
        if len(ids) > 1 and ids[-1] == ids[-2] and (not labels or labels[-1] != IGNORE_INDEX)
    )
    ((pad, count),) = runs.most_common(1) or [(None, 0)]
    if len({len(ids) for ids in rows}) == 1 and count > 1 and 2 * count >= len(rows):
        logger.warning(
            "%s: all rows have %d ids, and %d of %d end in a run of %s, which is scored: no attention_mask "
            "says that it is padding. Give attention_mask, or a tokenizer that has a pad token.",
            raw.name,
            len(rows[0]),
            count,
            len(rows),
            pad,
        )
