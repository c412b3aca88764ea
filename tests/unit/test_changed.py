"""The hint at an unfinished run beside a new one: what differs, and never the new run's end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from distil.changed import differences, unfinished_beside
from distil.system.locks import alone


def run(folder: Path, rate: float, fingerprints: Any) -> Path:
    """A run directory, as far as the hint reads it."""
    (folder / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"trainer:\n  learning_rate: {rate}\n", encoding="utf-8")
    (folder / "status.json").write_text('{"status": "interrupted"}', encoding="utf-8")
    known = {"code": "1", "fingerprints": fingerprints}
    (folder / "environment.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return run(tmp_path / "kd-s0-new", 0.1, {})


def test_the_setting_that_differs_is_named(new: Path) -> None:
    assert unfinished_beside(new) is None
    other = run(new.with_name("kd-s0-old"), 0.2, {})
    told = "trainer.learning_rate (0.2 there, 0.1 here)"
    assert (
        unfinished_beside(new)
        == f"It does not go on from {other}, which is unfinished and differs in {told}."
    )
    with alone(other, None):
        line = unfinished_beside(new)
    assert line is not None
    assert f", which is running (process {os.getpid()} on " in line


def test_of_many_settings_the_first_are_named() -> None:
    told = differences({f"key{i}": 0 for i in range(12)}, {f"key{i}": 1 for i in range(12)})
    assert told == [*(f"key{i} (0 there, 1 here)" for i in range(4)), "8 more"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", None),
        ("config.yaml", "a: [1\nb: {"),
        ("environment.json", '{"code": "1", "fingerprints": null}'),
        ("environment.json", '{"fingerprints": {}, "ignored": null}'),
    ],
)
def test_a_broken_folder_beside_costs_nothing(new: Path, name: str, content: str | None) -> None:
    file = run(new.with_name("kd-s0-old"), 0.2, {}) / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content, encoding="utf-8")
    assert unfinished_beside(new) is None
