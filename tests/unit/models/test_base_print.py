"""A base is told from its weights: another is another, in few bits or in floats it is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from distil.adapters.existing import same_base
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import load_student
from distil.models.base_print import base_print
from distil.models.quantize import TEACHER_KINDS
from tests.training import FAMILIES


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return FAMILIES[request.param](1, width=64)


def test_one_changed_weight_is_another_base(model: PreTrainedModel) -> None:
    """What a merged adapter changes: linear weights alone, embeddings and norms as they were."""
    before = base_print(model)
    assert same_base(before, base_print(model))
    name = next(n for n, p in model.named_parameters() if p.ndim == 2 and "attn" in n)
    with torch.no_grad():
        model.get_parameter(name).mul_(1.1)
    assert not same_base(before, base_print(model))


@pytest.mark.parametrize("kind", sorted(TEACHER_KINDS))
def test_few_bits_and_floats_are_one(model: PreTrainedModel, kind: str, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = ModelConfig("x", TeacherConfig(), StudentConfig(path=str(tmp_path)))
    packed = load_student(config, 0, quantization=TEACHER_KINDS[kind]).base_print
    assert same_base(packed, base_print(model))
    assert same_base(base_print(model), base_print(model.to(torch.bfloat16)))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.1)
    assert not same_base(packed, base_print(model))
