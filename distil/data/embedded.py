"""The embedded data set: English instructions and responses from a grammar that counts every choice.

Nothing is downloaded or stored: row i of a split is a function of (split, seed, i). Splits are disjoint by
a hash of the slots, so no two splits share an instruction. ``log_probability`` of a row is the true one of
its response given its prompt, in nats; its mean over rows estimates the entropy that no model can beat
(`true_entropy` is exact).

The slots of a row are what `distil.metrics.faithfulness` needs: ``required`` words, one list of
alternatives a named slot; ``forbidden`` words, all other values of those slots; ``items`` and ``count`` of
an asked list; and the patterns of the ``sentences`` that the grammar could answer with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any

from distil.config.schema import check
from distil.data.base import ColumnsConfig, DataSource, RawSplits, register_data
from distil.data.grammar.choices import entropy, sample
from distil.data.grammar.families import Family, draw_slots, fields_of, response_template
from distil.data.grammar.lexicon import CATEGORIES, COUNTS, Fields

SPLITS = {"train": 1, "validation": 1, "test": 1, "pretrain": 7}
"""Tenths of all slot combinations. ``pretrain`` is for the shipped models' own training alone."""


def generate_rows(split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """The first ``count`` rows of a split: prompt, response, slots, log_probability (of the response)."""
    if split not in SPLITS:
        raise ValueError(f"split={split} is unknown. Known: {', '.join(SPLITS)}.")
    return [_row(*_draw(split, index, seed)) for index in range(count)]


def true_entropy(split: str, count: int, seed: int) -> float:
    """Exact entropy of a response given its prompt, in nats, averaged over the rows of `generate_rows`."""
    draws = [_draw(split, index, seed) for index in range(count)]
    return sum(entropy(response_template(family, values)) for family, values, _ in draws) / max(count, 1)


def split_of(family: str, values: dict[str, str]) -> str:
    """The one split that may hold these slots."""
    key = f"{family} {sorted(values.items())}"
    tenth = int.from_bytes(sha256(key.encode()).digest()[:8], "big") % sum(SPLITS.values())
    for split, share in SPLITS.items():
        tenth -= share
        if tenth < 0:
            return split
    raise AssertionError("the shares of the splits do not cover the hash")


def _draw(split: str, index: int, seed: int) -> tuple[Family, dict[str, str], Random]:
    key = sha256(f"{split} {seed} {index}".encode()).digest()
    random = Random(int.from_bytes(key, "big"))
    while True:
        family, values = draw_slots(random)
        if split_of(family.name, values) == split:
            return family, values, random


def _row(family: Family, values: dict[str, str], random: Random) -> dict[str, Any]:
    prompt = family.prompts[random.randrange(len(family.prompts))].format_map(fields_of(family, values))
    response, log_probability = sample(response_template(family, values), random)
    return {
        "prompt": prompt,
        "response": response,
        "slots": _checks(family, values),
        "log_probability": log_probability,
    }


def _checks(family: Family, values: dict[str, str]) -> dict[str, Any]:
    fields = fields_of(family, values)
    forbidden: set[str] = set()
    for category in family.slots.values():
        for other in CATEGORIES[category].keys() - values.values():
            forbidden |= {other, *_said(category, other)}
    if "{she}" in family.response:
        forbidden |= set(fields["other_pronouns"].split("|"))
    return {
        "family": family.name,
        "required": [_said(category, values[slot]) for slot, category in family.slots.items()],
        "forbidden": sorted(forbidden),
        "items": fields["pairs"].replace("|", " ").split() if "count" in values else [],
        "count": COUNTS[values["count"]] if "count" in values else 0,
        "sentences": _patterns(family, values, fields),
    }


def _said(category: str, value: str) -> list[str]:
    return CATEGORIES[category][value].get("said", value).split("|")


def _patterns(family: Family, values: dict[str, str], fields: Fields) -> list[str]:
    """The sentences of the response as templates in which ``*`` is any required or forbidden word."""
    named = {
        slot: "*"
        for slot, category in family.slots.items()
        if "said" not in CATEGORIES[category][values[slot]]
    }
    opened = {"at": "[at|in|on] the *", "to": "to the *", "she": "[she|he]", "her": "[her|his]"}
    return re.split(r"(?<=[.!?]) |\n", family.response.format_map(fields | named | opened))


@dataclass
class EmbeddedDataConfig(ColumnsConfig):
    """Keys of ``data=embedded``. The caps say how many rows are drawn, as the grammar has no end."""

    name: str = "embedded"
    max_train_rows: int | None = 500
    max_eval_rows: int | None = 500
    rows_seed: int = 0
    """Seed of the rows: not the run's seed, so that all seeds train and evaluate on the same rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("max_train_rows", "max_eval_rows"):
            check(
                getattr(self, key) is not None,
                f"data.{key}=null: the embedded set has no end. Give a number.",
            )


@register_data("embedded", EmbeddedDataConfig)
class Embedded(DataSource[EmbeddedDataConfig]):
    """``data=embedded``: needs no file and no network."""

    def check(self, allow_network: bool = True) -> None:
        """Nothing can be missing."""

    def rows(self, allow_network: bool = True) -> RawSplits:
        """Fresh rows of the three splits."""
        c = self.config
        train, held_out = c.max_train_rows or 0, c.max_eval_rows or 0
        return RawSplits(
            generate_rows("train", train, c.rows_seed),
            generate_rows("validation", held_out, c.rows_seed),
            generate_rows("test", held_out, c.rows_seed),
        )
