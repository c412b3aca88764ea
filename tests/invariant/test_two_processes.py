"""Data parallelism does not change the answer: two processes of two rows are one of four."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distil import checkpoints

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "tests" / "invariant" / "two_processes.py")


def outcome(name: str, folder: Path, launcher: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, SCRIPT, name, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = torch.load(folder / "outcome.pt")
    return found


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    "name", ["kd", "gkd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sft", "revkd"))]
)
def test_two_processes_are_one(name: str, tmp_path: Path) -> None:
    """Counts, rollouts with their noise, gradients through the fused head, logged means, checkpoints."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    one = outcome(name, tmp_path / "one", [])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = outcome(name, tmp_path / "two", torchrun)
    assert two["totals"] == one["totals"]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)  # rounding, which AdamW feeds back
    assert torch.allclose(two["weights"], one["weights"], atol=2e-4)
    for ours, theirs in zip(two["means"], one["means"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    checkpoint = tmp_path / "two" / "checkpoint-3"
    assert checkpoints.verify(checkpoint) == []
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}
