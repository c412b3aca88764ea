"""Weights unpacked for a generation give the same bits, and are packed again afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from distil.config.schema import ModelConfig, RolloutConfig, StudentConfig, TeacherConfig
from distil.engine.rollouts import generate, uniforms
from distil.engine.unpacked import unpacked
from distil.models.load import load_student
from tests.conftest import build_gpt2, build_llama

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]


@pytest.fixture(params=["llama", "gpt2"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    build = {"llama": build_llama, "gpt2": build_gpt2}[request.param]
    sizes = {"llama": {"hidden_size": 64}, "gpt2": {"n_embd": 64}}[request.param]
    build(**sizes).save_pretrained(tmp_path)
    config = ModelConfig("x", TeacherConfig(), StudentConfig(path=str(tmp_path)))
    keys = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "auto"}
    return load_student(config, 0, quantization=keys).model.eval()


@torch.no_grad()
def test_the_same_bits(packed: PreTrainedModel) -> None:
    ids = torch.tensor([PROMPTS[2]])
    before = packed(ids).logits
    with unpacked(packed):
        inside = packed(ids).logits
    assert torch.equal(before, inside)
    assert torch.equal(before, packed(ids).logits)


def test_nothing_is_left_behind(packed: PreTrainedModel) -> None:
    noise = uniforms(0, 0, range(3), 6)
    generate(packed, PROMPTS, RolloutConfig(max_new_tokens=6), eos_ids=[], pad_id=0, uniforms=noise)
    assert not [module for module in packed.modules() if "forward" in vars(module)]


def test_plain_models_are_left_alone() -> None:
    model = build_llama()
    with unpacked(model):
        assert not [module for module in model.modules() if "forward" in vars(module)]
