"""Lower precision of the products: losses stay float32's, and so does the gradient but for rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distil.engine.trainer import DistillationTrainer
from tests.training import METHOD_NAMES, Setup, build_method, losses


def first_steps(name: str, folder: Path, **precision: bool) -> DistillationTrainer:
    # A rate of 0: every step is of the same weights, so the roundings of one do not move the next.
    arguments = {"learning_rate": 0.0, "weight_decay": 0.0, **precision}
    return Setup(build_method(name), folder, "llama", steps=3, batch=8, arguments=arguments).train()


def norms(trainer: DistillationTrainer) -> list[float]:
    return [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_bf16_has_the_loss_and_the_gradient_of_float32(name: str, tmp_path: Path) -> None:
    wide, low = (first_steps(name, tmp_path / str(bf16), bf16=bf16) for bf16 in (False, True))
    if low.tally.rollouts:  # a token that rounding changed would change the text that is scored
        assert low.tally.rollout_tokens == wide.tally.rollout_tokens
    assert losses(low) == pytest.approx(losses(wide), rel=1e-2)
    assert losses(low) != losses(wide), "nothing was lowered"
    assert norms(low) == pytest.approx(norms(wide), rel=1e-2)
    assert all(p.dtype == torch.float32 for p in low.model.parameters())
