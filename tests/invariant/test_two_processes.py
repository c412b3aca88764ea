"""Two processes of two rows are one of four, with whole models in each or with models cut up over both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from distil.engine import checkpoints
from distil.run_files import BROKEN_STEPS
from tests.invariant.test_broken_steps import POISONED

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "tests" / "invariant" / "two_processes.py")


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What ``accelerate launch --config_file conf/accelerate/fsdp2.yaml`` sets."""
ZERO3 = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
    "ACCELERATE_GRADIENT_CLIPPING": "auto",
}
"""What ``conf/accelerate/zero3.yaml`` sets."""
WAYS = [
    pytest.param(FSDP2, id="fsdp2"),
    pytest.param(
        ZERO3,
        id="zero3",
        marks=pytest.mark.skipif(
            find_spec("deepspeed") is None,
            reason="deepspeed is not installed: pip install -c constraints.txt -e '.[deepspeed]'",
        ),
    ),
]


def outcome(
    name: str,
    folder: Path,
    launcher: list[str],
    *checkpoint: Path,
    family: str = "llama",
    way: dict[str, str] | None = None,
) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= way or {}
    return ran([*launcher, SCRIPT, name, family, str(folder), *map(str, checkpoint)], folder, environment)


def ran(words: list[str], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = torch.load(folder / "outcome.pt")
    return found


@pytest.mark.timeout(600)
def test_a_step_that_is_broken_in_one_process_is_left_out_in_both(tmp_path: Path) -> None:
    """The rows that are named are those of the process that met it; nobody waits for anybody."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    script = str(ROOT / "tests" / "invariant" / "broken_in_one.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = ran([script, str(tmp_path / "one")], tmp_path / "one", environment)
    two = ran([*TORCHRUN, script, str(tmp_path / "two")], tmp_path / "two", environment)
    assert two["skipped"] == one["skipped"] > 0
    assert two["totals"] == one["totals"]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert torch.allclose(two["weights"], one["weights"], atol=2e-4)
    lines = {
        who: [
            json.loads(line)
            for line in (tmp_path / who / BROKEN_STEPS).read_text(encoding="utf-8").splitlines()
        ]
        for who in ("one", "two")
    }
    for whole, half in zip(lines["one"], lines["two"], strict=True):
        assert (whole["step"], whole["what"], whole["value"]) == (half["step"], half["what"], half["value"])
        assert set(half["rows"]) < set(whole["rows"])
        assert set(half["rows"]) & set(POISONED) == set(whole["rows"]) & set(POISONED) != set()


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    "name", ["kd", "gkd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sft", "revkd"))]
)
def test_two_processes_are_one(name: str, tmp_path: Path) -> None:
    """Counts, rollouts with their noise, gradients through the fused head, logged means, checkpoints."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    one = outcome(name, tmp_path / "one", [])
    two = outcome(name, tmp_path / "two", TORCHRUN)
    assert two["totals"] == one["totals"]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)  # rounding, which AdamW feeds back
    assert torch.allclose(two["weights"], one["weights"], atol=2e-4)
    for ours, theirs in zip(two["means"], one["means"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    checkpoint = tmp_path / "two" / "checkpoint-3"
    assert checkpoints.verify(checkpoint) == []
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "family"), [("sft", "gpt2"), ("kd", "llama"), ("revkd", "untied"), ("gkd", "gpt2")]
)
def test_models_in_parts_are_whole_ones(name: str, family: str, way: dict[str, str], tmp_path: Path) -> None:
    """Student and teacher cut up: losses, gradients, rollouts, weights; on from a checkpoint."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    one = outcome(name, tmp_path / "one", [], family=family)
    two = outcome(name, tmp_path / "two", TORCHRUN, family=family, way=way)
    assert two["fused"]
    assert all(part < whole for part, whole in zip(two["holds"], one["holds"], strict=True))
    assert two["totals"] == one["totals"]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-4)
    assert torch.allclose(two["weights"], one["weights"], atol=2e-4)
    if name != "gkd":
        return
    checkpoint = tmp_path / "two" / "checkpoint-3"
    assert checkpoints.verify(checkpoint) == []
    on = outcome(name, tmp_path / "on", TORCHRUN, checkpoint, family=family, way=way)
    assert torch.equal(on["weights"], two["weights"])
    assert on["totals"] == two["totals"]
    if way is ZERO3:  # a checkpoint like any other: whole models go on from it too
        on = outcome(name, tmp_path / "whole", TORCHRUN, checkpoint, family=family)
        assert torch.allclose(on["weights"], two["weights"], atol=1e-6)
