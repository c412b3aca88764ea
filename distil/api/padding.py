"""Padding that no ``attention_mask`` tells."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, Any, Literal

from distil.api.rows import RawRows, cells
from distil.types import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PADDED = "its padding was told by the tokenizer in hand, where no attention_mask was"


def without_padding(raw: RawRows, tokenizer: PreTrainedTokenizerBase | None) -> RawRows:
    """Rows that come padded and without a mask get one: the pad ids at their end, but for a first EOS.

    Those at their beginning too, where the pad token has no other meaning: as EOS, BOS or UNK it may be the
    row's own. So do their ``prompt_input_ids``, as far as the row itself does not begin with them. Rows
    without padding stay as they are. What may be padding, and no tokenizer tells, is said in a warning.
    """
    if "input_ids" not in raw.columns or "attention_mask" in raw.columns:
        return raw
    if tokenizer is None or tokenizer.pad_token_id is None:
        _warn(raw, "begin", "Give attention_mask, or a tokenizer that has a pad token.")
        _warn(raw, "end", "Give attention_mask, or a tokenizer that has a pad token.")
        return raw
    if not _pads_alone(tokenizer):
        way_out = f"Give attention_mask: the tokenizer pads with {tokenizer.pad_token}, which means more."
        _warn(raw, "begin", way_out, tokenizer.pad_token_id)
    bare_prompts = "prompt_input_ids" in raw.columns and "prompt_attention_mask" not in raw.columns

    def masked(row: Mapping[str, Any]) -> dict[str, Any]:
        ids = cells(row, "input_ids")
        masks = {"attention_mask": _mask(ids, tokenizer)}
        if bare_prompts:
            real = list(compress(ids, masks["attention_mask"]))
            masks["prompt_attention_mask"] = _prompt_mask(cells(row, "prompt_input_ids"), real, tokenizer)
        if not all(all(mask) for mask in masks.values()):
            raw.untold.add(PADDED)
        return {**row, **masks}

    rows = [masked(row) for row in raw.rows]
    if raw.rest is None and not raw.untold:
        return raw
    rest = None if raw.rest is None else map(masked, raw.rest)
    masks = ["attention_mask", *["prompt_attention_mask"] * bare_prompts]
    return replace(raw, rows=rows, rest=rest, columns=[*raw.columns, *masks])


def _pads_alone(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the pad token is for padding alone."""
    others = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    return tokenizer.pad_token_id not in others


def _mask(ids: Sequence[Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    end = len(ids)
    while end and ids[end - 1] == tokenizer.pad_token_id:
        end -= 1
    if tokenizer.pad_token_id == tokenizer.eos_token_id and end < len(ids):
        end += 1
    start = _begin(ids, end, tokenizer)
    return [0] * start + [1] * (end - start) + [0] * (len(ids) - end)


def _begin(ids: Sequence[Any], end: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many pad ids lie before the first other one, where they mean nothing else."""
    start = 0
    while _pads_alone(tokenizer) and start < end and ids[start] == tokenizer.pad_token_id:
        start += 1
    return start


def _prompt_mask(prompt: Sequence[Any], real: Sequence[Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """``real``: the row without its padding, which tells padding at the prompt's end from an EOS there."""
    end, pad = len(prompt), tokenizer.pad_token_id
    start = 0 if list(prompt) == real[:end] else _begin(prompt, end, tokenizer)
    while end > start and prompt[end - 1] == pad and list(prompt[start:end]) != real[: end - start]:
        end -= 1
    return [0] * start + [1] * (end - start) + [0] * (len(prompt) - end)


def _warn(raw: RawRows, where: Literal["begin", "end"], way_out: str, pad: int | None = None) -> None:
    """Say so where rows have one length and most begin (or end) in runs of one id that is scored.

    ``pad``: the id; None: whichever most have.
    """
    first, second, scored = (0, 1, 1) if where == "begin" else (-1, -2, -1)  # a first token is never scored
    rows = [cells(row, "input_ids") for row in raw.rows]
    targets = [cells(row, "labels") for row in raw.rows]
    runs = Counter(
        ids[first]
        for ids, labels in zip(rows, targets, strict=True)
        if len(ids) > 1
        and ids[first] == ids[second]
        and isinstance(ids[first], int)
        and pad in (None, ids[first])
        and (len(labels) != len(ids) or labels[scored] != IGNORE_INDEX)
    )
    ((run, count),) = runs.most_common(1) or [(None, 0)]
    if len({len(ids) for ids in rows}) == 1 and count > 1 and 2 * count >= len(rows):
        logger.warning(
            "%s: all rows have %d ids, and %d of %d %s in a run of %s, which is scored: no attention_mask "
            "says that it is padding. %s",
            raw.name,
            len(rows[0]),
            count,
            len(rows),
            where,
            run,
            way_out,
        )
