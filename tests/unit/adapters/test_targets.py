"""Where an adapter sits when nobody says: by family, and everywhere but the head in one that nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from distil.adapters.base import Adapter
from distil.adapters.ia3 import Ia3, Ia3Config
from distil.adapters.lora import Lora, LoraConfig
from distil.adapters.targets import names_of_linear
from distil.types import InputError

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
KNOWN = {
    "Llama": {"q_proj", "v_proj"},
    "Qwen2": {"q_proj", "v_proj"},
    "Qwen3": {"q_proj", "v_proj"},
    "GPTNeoX": {"query_key_value"},
    "GPT2": {"c_attn"},
}
UNKNOWN = ["Olmo2", "Granite", "Cohere", "SmolLM3", "Starcoder2"]


def build(family: str, **keys: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{family}Config")(**SIZES, **keys)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def adapted(model: PreTrainedModel, **keys: Any) -> set[str]:
    """Names, from the base, of the modules that have got LoRA matrices."""
    wrapped: Any = Lora(LoraConfig(**keys)).wrap(model)
    return {name for name, module in wrapped.get_base_model().named_modules() if hasattr(module, "lora_A")}


@pytest.mark.parametrize("family", KNOWN)
def test_by_family(family: str) -> None:
    model = build(family)
    names = [name for name, _ in model.named_modules()]
    expected = {name for name in names if name.rpartition(".")[2] in KNOWN[family]}
    assert expected
    assert adapted(model) == expected


@pytest.mark.parametrize("family", UNKNOWN)
@pytest.mark.parametrize("tied", [True, False])
def test_a_family_nobody_knows(family: str, tied: bool) -> None:
    """All linear modules but the head, whether its weight is the embeddings' or its own."""
    model = build(family, tie_word_embeddings=tied)
    linear = {name for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D))}
    assert "lm_head" in linear
    assert adapted(model) == linear - {"lm_head"}


def test_patterns_names_and_exclusions() -> None:
    assert adapted(build("Llama"), target_modules=r".*layers\.1\..*_proj", exclude_modules=["down_proj"]) == {
        f"model.layers.1.{place}"
        for place in (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            "mlp.gate_proj",
            "mlp.up_proj",
        )
    }
    assert adapted(build("GPT2"), target_modules=["attn.c_proj"]) == {
        f"transformer.h.{i}.attn.c_proj" for i in range(2)
    }


@pytest.mark.parametrize("chosen", [["query"], "query", ["proj"], r"layers\.0", ["q_proj", "vproj"]])
def test_targets_that_match_nothing(chosen: Any) -> None:
    """Names are whole names (or their ends after a dot), patterns match whole names: as PEFT takes them."""
    model = build("Llama")
    with pytest.raises(InputError, match=r"peft\.target_modules=.* matches no module") as refused:
        Lora(LoraConfig(target_modules=chosen)).wrap(model)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        assert name in str(refused.value)
    assert "lm_head" not in str(refused.value)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (
            Lora(LoraConfig(target_modules="all-linear", layers_to_transform=[0])),
            ["peft.target_modules=all-linear", "layers_to_transform"],
        ),
        (Lora(LoraConfig(target_modules="[q")), ["peft.target_modules=[q", "no pattern"]),
        (Lora(LoraConfig(exclude_modules="[q")), ["peft.exclude_modules=[q", "no pattern", "unterminated"]),
        (Lora(LoraConfig(exclude_modules="down")), ["peft.exclude_modules=down: matches", "down_proj"]),
        (
            Lora(LoraConfig(target_modules="all-linear", exclude_modules=["down_proj", "vproj"])),
            ["peft.exclude_modules=[down_proj,vproj]: vproj matches no module", "v_proj"],
        ),
        (
            Ia3(Ia3Config(target_modules=["k_proj"], feedforward_modules=["down_proj"])),
            ["peft.target_modules=[k_proj]", "feedforward_modules", "subset"],
        ),
        (
            Lora(LoraConfig(modules_to_save=["lm_head", "haed"])),
            ["peft.modules_to_save=[haed,lm_head]", "no module haed", "lm_head", "embed_tokens"],
        ),
        (Lora(LoraConfig(target_modules=["q_proj", "vproj"])), ["[q_proj,vproj]: vproj matches no module"]),
        (Lora(LoraConfig(rank_pattern={"vproj": 4})), ["peft.rank_pattern: vproj matches", "v_proj"]),
        (Lora(LoraConfig(alpha_pattern={"(q": 4})), ["peft.alpha_pattern: (q is no pattern"]),
        (Ia3(Ia3Config(modules_to_save=["wte"])), ["peft.modules_to_save=[wte]", "no module wte"]),
    ],
)
def test_keys_that_do_not_fit_together_or_the_student(adapter: Adapter[Any], said: list[str]) -> None:
    """Refused by their key, wherever PEFT sees it; and what PEFT passes over, too."""
    with pytest.raises(InputError) as refused:
        adapter.wrap(build("Llama"))
    for words in said:
        assert words in str(refused.value)


def test_blocks_that_the_student_does_not_have() -> None:
    model = build("Llama")
    blocks = model.config.num_hidden_layers
    assert adapted(model, layers_to_transform=[blocks - 1])
    with pytest.raises(InputError, match=rf"layers_to_transform=\[{blocks}\]: .* lie in 0\.\.{blocks - 1}\."):
        adapted(build("Llama"), layers_to_transform=[blocks])


def test_names_of_linear() -> None:
    assert names_of_linear(build("GPT2")) == ["c_attn", "c_proj", "c_fc"]


def test_patterns_of_rank_as_peft_reads_them() -> None:
    wrapped: Any = Lora(LoraConfig(r=2, rank_pattern={"v_proj": 4, r"layers\.1\..*q_proj": 3})).wrap(
        build("Llama")
    )
    ranks = {
        name: module.r["default"]
        for name, module in wrapped.get_base_model().named_modules()
        if hasattr(module, "lora_A")
    }
    assert ranks == {
        "model.layers.0.self_attn.q_proj": 2,
        "model.layers.1.self_attn.q_proj": 3,
        "model.layers.0.self_attn.v_proj": 4,
        "model.layers.1.self_attn.v_proj": 4,
    }
