"""The room that a run asks for is that of its checkpoints: beside an adapter, the base is in none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distil.training import saved_and_trained_bytes
from tests.adapters import load, save_bases
from tests.training import Setup, build_method


@pytest.mark.parametrize("case", ["none", "lora", "qlora-4", "ptuning"])
def test_what_a_checkpoint_holds(case: str, tmp_path: Path) -> None:
    """Against the files of a real one."""
    base = save_bases(tmp_path / "bases")
    student = load(base / "llama", case)
    saved, trained = saved_and_trained_bytes(student)
    assert trained == sum(p.numel() * p.element_size() for p in student.parameters() if p.requires_grad)
    arguments = {"save_strategy": "steps", "save_steps": 1}
    Setup(build_method("sft"), tmp_path, steps=1, arguments=arguments, student=lambda: student).train()
    written = sum(
        file.stat().st_size for file in (tmp_path / "checkpoint-1").iterdir() if file.suffix == ".safetensors"
    )
    assert saved <= written < saved + 10_000, "and the names of the weights"
