"""What a run works on: what does not fit together is refused, what is odd is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distil.data.jsonl import JsonlConfig
from distil.parts import load_parts
from distil.types import InputError
from tests.adapters import experiment, peft_config, save_bases

MADE_FOR = 128
"""Tokens, both tiny models."""


def test_rows_longer_than_a_model_was_made_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A table of positions ends there; a rotary model goes on, untrained: said where a row does."""
    bases = save_bases(tmp_path / "bases", width=16)
    file = tmp_path / "rows.jsonl"
    words = [" w3" * 10 * (i % 10 == 0) + f" w{2 + i}" for i in range(20)]
    words[4] += " w3" * 150
    rows = [{"prompt": f"w{2 + i}", "response": text} for i, text in enumerate(words)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    def notes(family: str, max_length: int, **keys: Any) -> list[str]:
        config = experiment(bases / family, peft_config("none"))
        keys |= {"max_length": max_length, "validation_fraction": 0.49}
        config = replace(config, data=JsonlConfig(train_file=str(file), **keys))
        caplog.clear()
        found = load_parts(config, wants_teacher=False).notes
        assert [said for said in caplog.messages if "left out" not in said] == found
        return found

    long = (
        f"1 row is longer than the {MADE_FOR} tokens that model.student was made for (up to 153). "
        f"data.max_length={MADE_FOR} keeps rows within them."
    )
    assert notes("llama", 512) == [long]
    assert notes("llama", 512, truncation="drop") == [long]
    assert notes("llama", 140, truncation="drop") == []
    assert [note.replace("up to 140", "up to 153") for note in notes("llama", 140)][1:] == [long]
    assert not any("made for" in note for note in notes("llama", MADE_FOR))
    with pytest.raises(InputError, match=f"rows of 153 tokens, but model.student has {MADE_FOR} positions"):
        notes("gpt2", 512)


FEW = "=0.05 sets aside 2 rows for the test: scores on so few say little. data.validation_fraction=0.2 "
FULL = (
    "3 of 40 rows that were read are left out: prompt fills data.max_length (3). A larger "
    "data.max_length=12 or data.truncation=prompt_left keeps them."
)
LONG = (
    "3 of 40 rows that were read are left out: longer than data.max_length (3). A larger "
    "data.max_length=12 or data.truncation=response keeps them."
)


@pytest.mark.parametrize(
    ("keys", "left_out", "few"),
    [
        ({}, "", FEW),
        ({"validation_fraction": 0.3}, "", ""),
        ({"max_eval_rows": 2}, "", ""),  # asked for
        ({"test_file": "test.jsonl"}, "", ""),
        ({"max_length": 12, "validation_fraction": 0.3}, FULL, ""),
        ({"max_length": 12, "validation_fraction": 0.3, "truncation": "drop"}, LONG, ""),
    ],
)
def test_how_many_rows_there_are_is_told_before_training(
    keys: dict[str, Any], left_out: str, few: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bases = save_bases(tmp_path / "bases", width=16)
    rows = [{"prompt": f"w{2 + i}" + " w3" * 20 * (i < 3), "response": "w5"} for i in range(40)]
    for name, kept in (("rows", rows), ("test", [{"prompt": "w60", "response": "w5"}])):
        text = "".join(f"{json.dumps(row)}\n" for row in kept)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    if "test_file" in keys:
        keys = {"test_file": str(tmp_path / "test.jsonl")}
    config = experiment(bases / "llama", peft_config("none"))
    config = replace(config, data=JsonlConfig(train_file=str(tmp_path / "rows.jsonl"), **keys))
    notes = load_parts(config, wants_teacher=False).notes
    assert [note for note in notes if few and few in note] == notes
    assert len(notes) == bool(few)
    assert caplog.messages == ([left_out] if left_out else notes)
