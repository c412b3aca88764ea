"""Twenty steps by the fused head end where twenty on whole logits end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import IA3Config, LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import PreTrainedModel

from distil.engine.trainer import DistillationTrainer
from tests.training import FAMILIES, METHOD_NAMES, Setup, build_method, distance, losses, tiny_llama

ADAPTERS: dict[str, Any] = {
    "none": None,
    "lora": LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "prefix": PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}

RATES = {"none": 0.5, "lora": 0.5, "ia3": 100.0, "prefix": 10.0}
"""Far enough to see: the fewer numbers an adapter has, the smaller their gradients are here."""


def student_of(adapter: str, family: str) -> PreTrainedModel:
    base, kind = FAMILIES[family](1), ADAPTERS[adapter]
    return base if kind is None else get_peft_model(base, kind)


def trained(
    name: str, folder: Path, adapter: str = "none", family: str = "llama", **arguments: Any
) -> DistillationTrainer:
    # AdamW's first steps are the sign of a gradient: they would tell of rounding alone.
    keys = {"optim": "sgd", "learning_rate": RATES[adapter], **arguments}
    setup = Setup(
        # In bf16 all on the data set's text: a token that rounding changed would change what is scored.
        build_method(name, **({"lambda_gkd": 1.0} if name == "gkd" and "bf16" in arguments else {})),
        folder,
        family,
        steps=20,
        batch=4,
        student=lambda: student_of(adapter, family),
        teacher=lambda _student: tiny_llama(0, width=32) if family == "llama" else FAMILIES[family](0, 32),
        arguments=keys,
    )
    return setup.train()


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize(
    ("adapter", "family"), [("none", "llama"), ("none", "gpt2"), *((a, "llama") for a in list(ADAPTERS)[1:])]
)
def test_fused_is_plain(
    name: str, adapter: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = trained(name, tmp_path / "fused", adapter, family)
    assert fused._student_forward is not None
    assert fused._student_forward._fused
    monkeypatch.setattr("distil.engine.forward.plain_head", lambda _model: None)
    plain = trained(name, tmp_path / "plain", adapter, family)
    assert plain._student_forward is not None
    assert not plain._student_forward._fused
    assert distance(fused.model, student_of(adapter, family)) > 1e-4, "nothing was learnt"
    assert losses(fused) == pytest.approx(losses(plain), rel=1e-5)
    assert distance(fused.model, plain.model) < 1e-5


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_fused_is_plain_in_bf16(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To what bfloat16 keeps of a product, three digits."""
    fused = trained(name, tmp_path / "fused", bf16=True)
    monkeypatch.setattr("distil.engine.forward.plain_head", lambda _model: None)
    plain = trained(name, tmp_path / "plain", bf16=True)
    assert losses(fused) == pytest.approx(losses(plain), rel=4e-3)
    assert distance(fused.model, plain.model) < 4e-3
