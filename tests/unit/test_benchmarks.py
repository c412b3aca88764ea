"""Benchmarks compare like with like: what each trainer reports is held to the work that it was asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

SIZE = (64, 2)
"""Vocabulary and rows a batch."""
CELLS = [
    ("ours", "JSD"),
    ("ours", "JSD on-policy"),
    ("ours", "KD"),
    ("ours", "RevKD"),
    ("bare loop", "JSD"),
    ("bare loop", "JSD on-policy"),
    ("TRL GKDTrainer", "JSD"),
    ("TRL GKDTrainer", "JSD on-policy"),
    ("TRL DistillationTrainer", "JSD on-policy"),
]


@pytest.fixture(scope="module")
def trainers() -> Any:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("trainers")
    sys.path.remove(folder)


@pytest.mark.parametrize("cell", CELLS, ids=", ".join)
def test_a_trainer_does_the_work_that_is_compared(trainers: Any, cell: tuple[str, str]) -> None:
    seen = trainers.train(cell, *SIZE, 2)
    assert len(seen["losses"]) == 2
    assert len(seen["seconds"]) == 1
    found = trainers.check(cell, *SIZE, seen)
    short = cell == ("TRL GKDTrainer", "JSD on-policy")  # sums over 64 tokens, divides by 192
    assert found["loss"] == pytest.approx(found["right"] / 3 if short else found["right"], rel=1e-4)


def test_other_work_is_not_compared(trainers: Any) -> None:
    cell = ("bare loop", "JSD")
    seen = trainers.train(cell, *SIZE, 1)
    with pytest.raises(ValueError, match="reported a loss"):
        trainers.check(cell, *SIZE, seen | {"losses": [1.001 * seen["losses"][0]]})
    with pytest.raises(ValueError, match="other sequences"):
        trainers.check(cell, *SIZE, seen | {"ids": [row[::-1] for row in seen["ids"]]})
    with pytest.raises(ValueError, match="other sequences"):
        trainers.check(cell, *SIZE, seen | {"ids": [row[:-1] for row in seen["ids"]]})


def test_the_bare_loop_trains_as_the_trainer_does(trainers: Any) -> None:
    for task in ("JSD", "JSD on-policy"):
        ours, bare = (trainers.train((name, task), *SIZE, 2)["losses"] for name in ("ours", "bare loop"))
        assert bare == pytest.approx(ours, rel=1e-6)


def test_the_page_sets_each_beside_ours_and_says_what_is_amiss(trainers: Any) -> None:
    cells = [
        {"row": row, "task": "JSD on-policy", "seconds": s, "peak_mb": mb, "loss": loss, "right": 0.3}
        for row, s, mb, loss in [("ours", 2.0, 100.0, 0.3), ("TRL GKDTrainer", 8.0, 500.0, 0.1)]
    ]
    record = {"command": "me", "machine": {}, "vocabulary": 64, "batch": 2, "missing": ["llm-distil"]}
    page = trainers.table(record | {"results": [{"allocator": "default", "cells": cells}]})
    assert "| JSD on-policy | TRL GKDTrainer | 8.000 (4.00) | 500 (5.00) | 0.10000 | 0.30000 |" in page
    assert "its loss is off by -67 %" in page
    assert "left out: llm-distil" in page


def test_help_says_what_is_made(trainers: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["trainers.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        trainers.main()
    assert ended.value.code == 0
    assert "trainers.md" in capsys.readouterr().out
