"""Weights cut up by FSDP2 over one process: what a checkpoint holds and gives back is what whole ones do.

The machinery is that of several processes, at a fraction of their time: ``test_two_processes`` has two.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.distributed.tensor import DTensor

from distil.engine.trainer import DistillationTrainer
from tests.invariant.test_two_processes import FSDP2
from tests.training import Setup, build_method


def setup(folder: Path, steps: int, best: bool = True, method: str = "gkd", **keys: Any) -> Setup:
    """Each evaluation is worse than those before; the longer the training, the worse from its beginning."""
    scores = itertools.count(float(steps))
    arguments = {
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "lr_scheduler_type": "inverse_sqrt",  # falls, and does not ask how long the run is
        "load_best_model_at_end": best,
    }
    evaluated = {"evaluate_student": lambda model: {"nll_per_token": next(scores)}}
    return Setup(build_method(method), folder, steps=steps, arguments=arguments, options=evaluated, **keys)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> DistillationTrainer:
    """A run of three steps on whole models."""
    return setup(tmp_path_factory.mktemp("whole"), 3, best=False).train()


@pytest.fixture
def cut_up(whole: DistillationTrainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is the only one of a run whose models are cut up."""
    if not dist.is_gloo_available():
        pytest.skip("torch without gloo")
    for name, value in FSDP2.items():
        monkeypatch.setenv(name, value)
    AcceleratorState._reset_state(reset_partial_state=True)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def weights(trainer: DistillationTrainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.shells.filled(trainer.model).parameters()])


def rates(trainer: DistillationTrainer) -> list[float]:
    return [each["learning_rate"] for each in trainer.state.log_history if "learning_rate" in each]


def test_gone_on_it_is_a_run_of_whole_models(
    whole: DistillationTrainer, cut_up: None, tmp_path: Path
) -> None:
    """The first step is the best one: asked for at the end, it is given back to the bit."""
    first = setup(tmp_path, 1).train()
    assert all(isinstance(p, DTensor) for p in first.model.parameters())
    before = weights(first)
    gone_on = setup(tmp_path, 3, best=False).train(resume=tmp_path / "checkpoint-1")
    assert torch.allclose(weights(gone_on), weights(whole), rtol=0, atol=1e-6)
    assert rates(gone_on) == rates(whole)
    assert gone_on.tally.totals() == whole.tally.totals()
    best = setup(tmp_path, 3).train(resume=tmp_path / "checkpoint-1")
    assert torch.equal(weights(best), before)


class Code:
    """What a pickle can hold besides numbers."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.run,)


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt"])
def test_no_code_of_a_checkpoint_is_run(file: str, cut_up: None, tmp_path: Path) -> None:
    alone: dict[str, Any] = {"method": "sft", "teacher": lambda _: None}
    setup(tmp_path, 1, **alone).train()
    torch.save(Code(tmp_path / "run"), tmp_path / "checkpoint-1" / file)
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        setup(tmp_path, 2, **alone).train(resume=tmp_path / "checkpoint-1")
    assert not (tmp_path / "run").exists()
