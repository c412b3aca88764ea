"""Beside a base in 4 or 8 bits: gradients are those of the numbers it holds, and nothing that happens between
two steps changes them (traps 31 and 62)."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil.adapters.base import ADAPTERS
from distil.config.schema import ModelConfig, RolloutConfig, StudentConfig, TeacherConfig
from distil.data.collate import collate
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.rollouts import generate
from distil.head import score
from distil.models import load_teacher
from tests.adapters import frozen_state, load, peft_config, save_bases, stir, trained_state
from tests.training import EOS, FAMILIES, VOCABULARY, Setup, build_method, losses, random_rows

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "nf4": ("qlora-4", {}),
    "fp4": ("qlora-4", {"bnb_4bit_quant_type": "fp4"}),
    "nf4, once": ("qlora-4", {"bnb_4bit_use_double_quant": False}),
    "int8": ("qlora-8", {}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # It announces every product that it makes in float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return save_bases(tmp_path_factory.mktemp("bases"))


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """Of a KD loss, in train mode, by name."""
    batch = collate(random_rows(8), EOS)
    scored, targets = scored_and_targets(batch["labels"])
    teacher = FAMILIES["llama"](2).eval()
    with torch.no_grad():
        taught = Forward(teacher)(batch["input_ids"], batch["attention_mask"], scored)
    model.train().zero_grad()
    student = Forward(model)(batch["input_ids"], batch["attention_mask"], scored)
    loss, _ = score(student, targets, build_method("kd").terms(0), taught, VOCABULARY)
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def dequantised(model: Any) -> Any:
    """The same model with plain linear layers that hold what the quantised ones stand for."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if not isinstance(module, (Linear4bit, Linear8bitLt)):
            continue
        if isinstance(module, Linear4bit):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        else:
            weight = module.weight.CB.float() * module.weight.SCB.float()[:, None] / 127
        linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        linear.weight = nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            linear.bias = nn.Parameter(module.bias.data.clone(), requires_grad=False)
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, linear)
    return plain


def cosine(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    both = [torch.cat([g[name].flatten() for name in ours]) for g in (ours, theirs)]
    return float(torch.nn.functional.cosine_similarity(*both, dim=0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dequantised_base(kind: str, family: str, bases: Path) -> None:
    """Fresh, after a forward in eval mode, after generation: the same to the bit, and right."""
    case, keys = KINDS[kind]
    model = load(bases / family, case, **keys)
    stir(model)
    reference = gradients(dequantised(model))
    held = frozen_state(model)
    fresh = gradients(model)
    assert cosine(fresh, reference) > 0.999

    with torch.no_grad():
        model.eval()(input_ids=torch.tensor([[5, 6, 7]]))
        model(input_ids=torch.tensor([[5]]))  # one token: the road with a kernel of its own
    after_eval = gradients(model)
    generate(model, [[5, 6], [7]], RolloutConfig(max_new_tokens=6), eos_ids=[], pad_id=EOS, uniforms=None)
    after_generation = gradients(model)
    for later in (after_eval, after_generation):
        assert all(torch.equal(later[name], fresh[name]) for name in fresh)
    now = frozen_state(model)
    assert all(torch.equal(held[name], now[name]) for name in held)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_train_and_eval_say_the_same(kind: str, family: str, bases: Path) -> None:
    case, keys = KINDS[kind]
    model = load(bases / family, case, **keys)
    ids = torch.tensor([[5, 9, 31, 7]])
    with torch.no_grad():
        before = model.train()(input_ids=ids).logits
        during = model.eval()(input_ids=ids).logits
        after = model.train()(input_ids=ids).logits
    assert torch.equal(before, during)
    assert torch.equal(before, after)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_its_dequantised_self(kind: str, family: str, bases: Path) -> None:
    """In eval mode too, where one row of a batch has an activation far above the others: what a merged model
    says, and what each row says alone."""
    case, keys = KINDS[kind]
    model = load(bases / family, case, **keys)
    with torch.no_grad():
        model.get_input_embeddings().weight[7, :8] *= 100
    plain = dequantised(model)
    ids = torch.tensor([[5, 9, 31, 12], [7, 7, 9, 12]])
    for mode in (True, False):
        with torch.no_grad():
            said = model.train(mode)(input_ids=ids).logits
            expected = plain.train(mode)(input_ids=ids).logits
            alone = [model(input_ids=row[None]).logits[0] for row in ids]
        assert torch.allclose(said, expected, atol=1e-5)
        assert torch.allclose(said, torch.stack(alone), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", ["qlora-4", "qlora-8"])
def test_evaluations_do_not_disturb_training(case: str, family: str, bases: Path, tmp_path: Path) -> None:
    """40 steps with an evaluation every 5, generation too, against none: losses and weights to the bit."""

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        generate(model, [[5, 6], [7]], RolloutConfig(max_new_tokens=3), eos_ids=[], pad_id=EOS, uniforms=None)
        with torch.no_grad():
            said = model.eval()(input_ids=torch.tensor([[5, 9, 31]])).logits
        return {"nll_per_token": float(said.abs().mean())}

    def train(evaluated: bool) -> tuple[list[float], dict[str, Tensor]]:
        arguments = {"eval_strategy": "steps", "eval_steps": 5} if evaluated else {}
        trainer = Setup(
            build_method("kd"),
            tmp_path / str(evaluated),
            family,
            steps=40,
            arguments=arguments,
            options={"evaluate_student": evaluate if evaluated else None},
            student=lambda: load(bases / family, case, dropout=True),
        ).train()
        return losses(trainer), trained_state(trainer.model)

    plain, weights = train(False)
    evaluated, others = train(True)
    assert len(plain) == 40
    assert plain[-1] < plain[0], "and it learns"
    assert evaluated == plain
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantised_teacher(kind: str, family: str, bases: Path, tmp_path: Path) -> None:
    """It says nearly what the teacher in floats says, the same before and after generation, and teaches."""
    plain, quantised = (
        load_teacher(
            ModelConfig("custom", TeacherConfig(str(bases / family), quantization=how), StudentConfig())
        )
        for how in (None, kind)
    )
    assert plain is not None
    assert quantised is not None
    ids = torch.tensor([[5, 9, 31, 7, 12]])
    with torch.no_grad():
        expected = plain(input_ids=ids).logits.softmax(-1)
        first = quantised(input_ids=ids).logits
        generate(
            quantised, [[5, 6], [7]], RolloutConfig(max_new_tokens=3), eos_ids=[], pad_id=EOS, uniforms=None
        )
        assert torch.equal(quantised(input_ids=ids).logits, first)
    apart = (first.softmax(-1) - expected).abs().sum(-1).max()
    assert 0 < apart < 0.7, "quantised, and still itself"
    assert not any(p.requires_grad for p in quantised.parameters())
    trainer = Setup(build_method("kd"), tmp_path, family, steps=2, teacher=lambda _: quantised).train()
    assert len(losses(trainer)) == 2


def test_a_folder_that_is_in_4_bits_already_is_safe_too(bases: Path, tmp_path: Path) -> None:
    """Its gradients beside a LoRA do not change after an evaluation (trap 62)."""
    from distil.models import load_student

    packed = load_teacher(
        ModelConfig("x", TeacherConfig(path=str(bases / "llama"), quantization="nf4"), StudentConfig())
    )
    assert packed is not None
    packed.save_pretrained(tmp_path)
    loaded = load_student(ModelConfig("x", TeacherConfig(), StudentConfig(path=str(tmp_path))), 0)
    model = ADAPTERS.get("lora").factory(peft_config("lora")).wrap(loaded.model)
    stir(model)
    before = gradients(model)
    with torch.no_grad():
        model.eval()(input_ids=torch.tensor([[5, 9, 31]]))
    after = gradients(model.train())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
