"""The student's base as its teacher: to the bit a separate copy, and the student is left alone (trap 23)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distil.config.schema import RolloutConfig
from distil.data.collate import collate
from distil.engine.anatomy import positions
from distil.engine.evaluation import score_rows
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.rollouts import generate, uniforms
from distil.engine.self_teacher import adapter_off
from distil.results import parameter_counts
from tests.adapters import ADAPTED, adapter_of, load, save_bases, stir, trained_state
from tests.training import EOS, VOCABULARY, Setup, build_method, losses, random_rows

SELF = [case for case in ADAPTED if adapter_of(case).keeps_base]
BATCH = collate(random_rows(6), EOS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout in the base: a teacher must not feel it."""
    return save_bases(tmp_path_factory.mktemp("bases"), dropout=0.3)


@pytest.fixture(params=["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def base(request: pytest.FixtureRequest, bases: Path) -> Path:
    return bases / str(request.param)


def copy_of_base(base: Path, case: str) -> PreTrainedModel:
    """A model of its own, loaded as the student's base is, with no adapter ever on it."""
    from distil.models import load_student
    from tests.adapters import experiment, peft_config

    config = experiment(base, peft_config("none"))
    loaded = load_student(config.model, 0, quantization=adapter_of(case).quantization)
    return loaded.model.eval().requires_grad_(False)


@torch.no_grad()
def say(model: PreTrainedModel, **more: Any) -> Tensor:
    """Logits over padded rows, positions given as Forward gives them."""
    mask = BATCH["attention_mask"]
    logits: Tensor = model(
        input_ids=BATCH["input_ids"], attention_mask=mask, position_ids=positions(mask), **more
    ).logits
    return logits


def signal(model: PreTrainedModel) -> Tensor:
    """What the trainer asks a teacher for."""
    scored, _ = scored_and_targets(BATCH["labels"])
    with torch.no_grad():
        dense = Forward(model)(BATCH["input_ids"], BATCH["attention_mask"], scored)
    assert dense.head.weight_VH is not None, "the fused road"
    return dense.head.logits(dense.hidden_NH)


def facts(model: torch.nn.Module) -> list[Any]:
    """Modes of all modules, and which parameters are trained."""
    return [module.training for module in model.modules()] + [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("case", SELF)
def test_to_the_bit_a_copy_of_the_base(case: str, base: Path, tmp_path: Path) -> None:
    """In train mode, with dropout in the base, with a stirred adapter, after training, after generation."""
    student, separate = load(base, case, dropout=True).train(), copy_of_base(base, case)
    teacher = adapter_off(student)
    expected = say(separate)

    def check() -> None:
        before, chance = facts(student), torch.get_rng_state()
        assert torch.equal(say(teacher), expected)
        assert torch.equal(say(teacher, use_cache=False), expected)
        assert torch.equal(signal(teacher), signal(separate))
        assert facts(student) == before
        assert torch.equal(torch.get_rng_state(), chance), "no dropout was drawn"

    check()
    stir(student)
    check()
    assert not torch.equal(say(student.eval())[:, -BATCH["input_ids"].shape[1] :], expected)
    student.train()
    Setup(build_method("gkd"), tmp_path, student=lambda: student).train()
    check()


@pytest.mark.parametrize("case", SELF)
def test_it_does_all_that_is_asked_of_a_teacher(case: str, base: Path) -> None:
    """Evaluated and rolled out as the copy is; it counts no parameters and has the base's own config."""
    student, separate = load(base, case).train(), copy_of_base(base, case)
    stir(student)
    teacher = adapter_off(student)
    prompts = [row["prompt_ids"] for row in random_rows(5)]
    settings: dict[str, Any] = {"sampling": RolloutConfig(max_new_tokens=8), "eos_ids": [EOS], "pad_id": EOS}
    noise = uniforms(0, 0, range(5), 8)
    before = facts(student)
    for chance in (None, noise):
        assert generate(teacher, prompts, uniforms=chance, **settings) == generate(
            separate, prompts, uniforms=chance, **settings
        )
    rows = random_rows(7)
    assert score_rows(teacher, None, rows, EOS, 3, VOCABULARY) == score_rows(
        separate, None, rows, EOS, 3, VOCABULARY
    )
    assert facts(student) == before
    assert parameter_counts(teacher, student)["teacher"] == 0
    assert teacher.config.to_dict() == student.config.to_dict()


@pytest.mark.parametrize("method", ["kd", pytest.param("gkd", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", SELF)
def test_training_is_that_with_a_copy_as_teacher(case: str, method: str, bases: Path, tmp_path: Path) -> None:
    """Three steps with dropout in the base and in the adapter: the same losses and weights to the bit."""

    def train(own: bool) -> tuple[list[float], dict[str, Tensor]]:
        trainer = Setup(
            build_method(method),
            tmp_path / str(own),
            "gpt2",
            batch=2,
            accumulation=2,
            student=lambda: load(bases / "gpt2", case, dropout=True),
            teacher=lambda student: adapter_off(student) if own else copy_of_base(bases / "gpt2", case),
        ).train()
        return losses(trainer), trained_state(trainer.model)

    ours, weights = train(own=True)
    theirs, expected = train(own=False)
    assert ours == theirs
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("case", "keys"),
    [
        ("lora", {"init_lora_weights": "pissa"}),
        ("dora", {"init_lora_weights": "pissa"}),
        ("lora", {"init_lora_weights": "olora"}),
        ("lora", {"bias": "all"}),
        ("qlora-4", {"bias": "lora_only"}),
    ],
)
def test_what_changes_the_base_says_so(case: str, keys: dict[str, Any], bases: Path) -> None:
    """``keeps_base`` is false exactly where the base, its adapter off, is another after a change."""
    assert not adapter_of(case, **keys).keeps_base
    student = load(bases / "gpt2", case, **keys)
    stir(student)
    assert not torch.equal(say(adapter_off(student)), say(copy_of_base(bases / "gpt2", case)))


@pytest.mark.parametrize(
    "keys",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"], "target_modules": ["v_proj"]},
        {"target_modules": ["v_proj", "lm_head"]},
    ],
)
def test_what_leaves_the_base_says_so(keys: dict[str, Any], bases: Path) -> None:
    assert adapter_of("lora", **keys).keeps_base
    student = load(bases / "llama", "lora", **keys)
    stir(student)
    assert torch.equal(say(adapter_off(student)), say(copy_of_base(bases / "llama", "lora")))
