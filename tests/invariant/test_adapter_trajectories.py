"""What must not change the answer does not, behind every adapter: batch shape, a resume, checkpointing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distil.types import RunFailed
from tests.adapters import ADAPTED, adapter_of, load, save_bases, stir, trained_state
from tests.training import FAMILIES, Setup, build_method, losses

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "prefix, projected": ("prefix", {"prefix_projection": True, "encoder_hidden_size": 24}),
    "ptuning, LSTM": ("ptuning", {"encoder_reparameterization_type": "LSTM", "encoder_dropout": 0.1}),
    "lora, head whole": ("lora", {"modules_to_save": ["lm_head"]}),
}
"""Adapters that train more than their product holds, or more than an adapter."""
CHECKPOINTED = [case for case in ADAPTED if adapter_of(case).gradient_checkpointing]
RUNS = {case: (case, {}) for case in ADAPTED} | NETWORKS


def quick(*names: str, among: Iterable[str]) -> list[Any]:
    """Those named are tested by `make test`, the others by `make test-all`."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in among]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bases(tmp_path_factory.mktemp("bases"))


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference between two states."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("family", quick("gpt2", among=FAMILIES))
@pytest.mark.parametrize("case", ADAPTED)
def test_batch_shape_changes_nothing(case: str, family: str, bases: Path, tmp_path: Path) -> None:
    """4 x 1 and 1 x 4 (rows a micro-batch x accumulation) end in the same weights, rollouts included.

    Plain gradient descent: AdamW turns the last bit of a gradient near 0 into a whole step.
    """

    def train(batch: int) -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
        student = load(bases / family, case)
        before = trained_state(student)
        arguments = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}
        trainer = Setup(
            build_method("gkd"),
            tmp_path / str(batch),
            family,
            batch,
            4 // batch,
            arguments=arguments,
            student=lambda: student,
        ).train()
        return losses(trainer), before, trained_state(student)

    together, before, after = train(4)
    one_by_one, _, other = train(1)
    moved = apart(before, after)
    assert moved > 1e-4
    assert one_by_one == pytest.approx(together, rel=1e-5)
    assert apart(after, other) < 2e-4 * moved


@pytest.mark.parametrize("run", quick("lora", "ptuning", "prefix, projected", among=RUNS))
def test_resume_is_bitwise(run: str, bases: Path, tmp_path: Path) -> None:
    """With dropout and evaluations on the way: stopped at step 2 and gone on = never stopped, in all that is
    trained (the network behind a prompt too) and in what the model says."""
    case, keys = RUNS[run]
    start = load(bases / "gpt2", case, dropout=True, **keys)

    def setup(folder: str, steps: int) -> Setup:
        arguments = {
            "save_strategy": "steps",
            "save_steps": 2,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "save_total_limit": 9,
        }
        return Setup(
            build_method("gkd"),
            tmp_path / folder,
            "gpt2",
            batch=2,
            accumulation=2,
            steps=steps,
            arguments=arguments,
            options={"evaluate_student": _evaluate},
            student=lambda: load(bases / "gpt2", case, dropout=True, **keys),
        )

    whole = setup("whole", 4).train()
    setup("parts", 2).train()
    resumed = setup("parts", 4).train(resume=tmp_path / "parts" / "checkpoint-2")
    assert apart(trained_state(whole.model), trained_state(start)) > 0
    assert apart(trained_state(whole.model), trained_state(resumed.model)) == 0
    assert torch.equal(_say(whole.model), _say(resumed.model))
    assert resumed.tally.totals() == whole.tally.totals()


@pytest.mark.parametrize("saved", ["steps", "best"])
@pytest.mark.parametrize("run", quick("lora", "prefix, projected", among=RUNS))
def test_the_best_checkpoint_is_loaded(run: str, saved: str, bases: Path, tmp_path: Path) -> None:
    """load_best_model_at_end gives the weights of the best evaluation, all that is trained."""
    case, keys = RUNS[run]
    scores = iter([2.0, 1.0, 3.0])
    seen: list[dict[str, Tensor]] = []

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        seen.append(trained_state(model))
        return {"nll_per_token": next(scores)}

    arguments = {
        "save_strategy": saved,
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
    }
    trainer = Setup(
        build_method("sft"),
        tmp_path,
        arguments=arguments,
        options={"evaluate_student": evaluate},
        student=lambda: load(bases / "llama", case, **keys),
    ).train()
    assert apart(seen[1], seen[2]) > 0
    assert apart(trained_state(trainer.model), seen[1]) == 0


def test_a_checkpoint_of_another_adapter_is_refused(bases: Path, tmp_path: Path) -> None:
    def setup(rank: int) -> Setup:
        saved = {"save_strategy": "steps", "save_steps": 1}
        student = partial(load, bases / "llama", "lora", r=rank)
        return Setup(build_method("sft"), tmp_path, steps=1, arguments=saved, student=student)

    setup(2).train()
    with pytest.raises(RunFailed, match="checkpoint-1: it holds other parameters than those trained here"):
        setup(3).train(resume=tmp_path / "checkpoint-1")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", quick("lora", "ptuning", among=CHECKPOINTED))
def test_checkpointing_activations_changes_no_gradient(
    case: str, family: str, bases: Path, tmp_path: Path
) -> None:
    """One step along the gradient, with and without: the same weights, where the student generates too."""

    def step(checkpointing: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        student = load(bases / family, case)
        stir(student)
        before = trained_state(student)
        arguments = {
            "optim": "sgd",
            "learning_rate": 1.0,
            "max_grad_norm": 0.0,
            "gradient_checkpointing": checkpointing,
        }
        trainer = Setup(
            build_method("gkd"),
            tmp_path / str(checkpointing),
            family,
            steps=1,
            arguments=arguments,
            student=lambda: student,
        ).train()
        assert trainer.model.is_gradient_checkpointing is checkpointing
        return before, trained_state(student)

    before, plain = step(False)
    _, saving = step(True)
    moved = {name: float((plain[name] - before[name]).abs().max()) for name in plain}
    assert all(moved.values()), "each trained parameter has a gradient"
    assert apart(plain, saving) < 1e-5 * max(moved.values())


def test_full_rank_starts_along_the_full_gradient(bases: Path, tmp_path: Path) -> None:
    """LoRA of full rank: the first change of every target's weight goes along that of full fine-tuning."""
    arguments = {"optim": "sgd", "learning_rate": 1e-2, "max_grad_norm": 0.0}
    for family, targets in (("llama", 7), ("gpt2", 4)):
        keys = {"target_modules": "all-linear", "r": 64, "lora_alpha": 64}

        def run(student: PreTrainedModel, folder: str, family: str = family) -> None:
            Setup(
                build_method("kd"),
                tmp_path / folder,
                family,
                steps=1,
                arguments=arguments,
                student=lambda: student,
            ).train()

        full, start = load(bases / family, "none"), load(bases / family, "none")
        run(full, f"full {family}")
        adapted: Any = load(bases / family, "lora", **keys)
        run(adapted, f"lora {family}")
        before, after = dict(start.named_parameters()), dict(full.named_parameters())
        layers = {n: m for n, m in adapted.get_base_model().named_modules() if hasattr(m, "lora_A")}
        assert len(layers) == 2 * targets
        for name, layer in layers.items():
            change = after[f"{name}.weight"] - before[f"{name}.weight"]
            ours = layer.get_delta_weight("default")
            cosine = torch.nn.functional.cosine_similarity(ours.flatten(), change.flatten(), dim=0)
            # B A with B at its start: the gradient seen through A A^T, whose rank is full.
            assert cosine > 0.3, name


def _evaluate(model: PreTrainedModel) -> dict[str, float]:
    model.eval()
    return {"nll_per_token": float(_say(model).sum())}


@torch.no_grad()
def _say(model: PreTrainedModel) -> Tensor:
    logits: Tensor = model.eval()(input_ids=torch.tensor([[5, 9, 31, 7, 12]])).logits
    return logits
