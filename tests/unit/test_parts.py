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
        config = replace(config, data=JsonlConfig(train_file=str(file), max_length=max_length, **keys))
        caplog.clear()
        found = load_parts(config, wants_teacher=False).notes
        assert caplog.messages == found
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
