"""Which rows are set aside to evaluate on, where a source has no split for it."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distil.data.base import ColumnsConfig
from distil.data.columns import Kind, Shape, template_fields
from distil.data.raw_rows import RawRows, columns_of, iterate
from distil.types import InputError


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
    equal rows always do. A template may write several prompts of one question: those stay together where they
    can.
    """
    if not missing:
        return {}
    all_numbers = range(len(rows)) if usable is None else usable
    most = (len(all_numbers) - 1) // len(missing)  # a row at least stays to train on
    wanted = max(1, min(round(config.validation_fraction * len(all_numbers)), most))
    for same, oversized in (("question", False), ("prompt", False), ("row", False), ("row", True)):
        groups: dict[Any, list[int]] = defaultdict(list)
        for number, key in zip(all_numbers, _keys(rows, shape, same, all_numbers), strict=True):
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


def _keys(rows: RawRows, shape: Shape, same: str, numbers: Sequence[int]) -> Iterator[Any]:
    """What must not stand on both sides of a split: of each of these rows its question (the column alone that
    a template writes into the prompt), its prompt, or all of the row that counts."""
    whole = same == "row"
    if shape.kind is Kind.TOKENS:
        whole = whole or "prompt_input_ids" not in columns_of(rows, numbers)
        columns = ["input_ids" if whole else "prompt_input_ids"]
    elif shape.kind is Kind.MESSAGES:
        columns = [shape.messages or ""]
    elif shape.kind is Kind.TEXT:
        columns = [shape.text or ""]
    else:
        columns = [name for name in (shape.prompt, shape.context) if name] or columns_of(rows)
        written = template_fields(shape.template)
        if written and (same != "question" or not set(columns) <= set(written)):
            columns = written
        columns = [*columns, shape.response or ""] if whole else columns
    for row in iterate(rows, numbers, columns):
        value: Any = [row.get(name) for name in columns]
        if shape.kind is Kind.MESSAGES and not whole and isinstance(value[0], list):
            value = value[0][: _answer(value[0])]
        yield json.dumps(value, sort_keys=True, default=str)


def _answer(turns: Sequence[Any]) -> int:
    """Which of a row's turns is the response: the assistant's last; the last one where it has none."""
    by_assistant = [isinstance(turn, Mapping) and turn.get("role") == "assistant" for turn in turns]
    return max((index for index, its in enumerate(by_assistant) if its), default=len(turns) - 1)
