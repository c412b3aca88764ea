"""Batches: padding is on the right, never scored, and told by its place alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distil.data.collate import collate
from distil.types import IGNORE_INDEX

ROWS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=5)


@given(ROWS, st.integers(0, 9))
def test_padding_changes_no_row(ids: list[list[int]], pad_id: int) -> None:
    """pad = EOS, pad = any id of the text: what comes out of each row is what went in."""
    rows = [{"input_ids": row, "labels": [IGNORE_INDEX, *row[1:]], "prompt": "left out"} for row in ids]
    batch = collate(rows, pad_id)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    width = max(map(len, ids))
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        assert batch["input_ids"][index].tolist() == row["input_ids"] + [pad_id] * (width - length)
        assert batch["labels"][index].tolist() == row["labels"] + [IGNORE_INDEX] * (width - length)
        assert batch["attention_mask"][index].tolist() == [1] * length + [0] * (width - length)
