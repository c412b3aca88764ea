"""A row as tokens, why a row has none, and how one is shortened."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distil.types import IGNORE_INDEX

EMPTY_PROMPT = "empty prompt"
EMPTY_RESPONSE = "empty response"
EMPTY_TEXT = "empty text"
NO_ASSISTANT = "no assistant turn"
PROMPT_TOO_LONG = "prompt fills data.max_length"
TOO_LONG = "longer than data.max_length"
NOTHING_SCORED = "no scored token"


@dataclass(frozen=True)
class Encoded:
    """One row as tokens.

    ``ids`` and ``labels`` have one length; position 0 is never scored, as nothing predicts it. ``prompt``:
    how many leading ids generation starts from. ``keep``: how many of them (BOS) survive when the prompt
    loses its left.
    """

    ids: list[int]
    labels: list[int]
    prompt: int
    keep: int
    prompt_text: str
    response_text: str
    cut: int = 0
    """How many ids it lost to ``max_length``."""


@dataclass(frozen=True)
class Dropped:
    """A row that cannot be used: why, and how long its prompt is where that is the reason."""

    reason: str
    prompt_tokens: int = 0


def shorten(row: Encoded, max_length: int, truncation: str) -> Encoded | Dropped:
    """``row`` with at most ``max_length`` ids and at least one scored token, or why there is none.

    ``response`` cuts at the end. ``prompt_left`` first cuts the prompt after its BOS, down to one token, then
    the end. ``drop`` cuts nothing. A cut end takes the closing EOS with it: stopping is not learnt at a cut.
    """
    excess = len(row.ids) - max_length
    if excess > 0 and truncation == "drop":
        return Dropped(TOO_LONG)
    if excess > 0 and truncation == "prompt_left":
        cut = slice(row.keep, row.keep + max(0, min(excess, row.prompt - row.keep - 1)))
        ids, labels = list(row.ids), list(row.labels)
        del ids[cut], labels[cut]
        row = replace(row, ids=ids, labels=labels, prompt=row.prompt - (len(row.ids) - len(ids)))
    ids, labels = row.ids[:max_length], [IGNORE_INDEX, *row.labels[1:max_length]]
    if all(label == IGNORE_INDEX for label in labels):
        return Dropped(PROMPT_TOO_LONG, row.prompt) if row.prompt >= max_length else Dropped(NOTHING_SCORED)
    return replace(row, ids=ids, labels=labels, prompt=min(row.prompt, max_length), cut=max(0, excess))
