"""Depth pruning: a pruned model is the model one would have built by hand from the kept blocks."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distil.models import block_influence, choose_layers, prune_layers
from distil.models.pruning import decoder_blocks
from distil.types import InputError

LAYERS = 6
KEPT = [0, 2, 3, 5]

_llama = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "num_hidden_layers": LAYERS,
}
_windows = {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"] * 3}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _llama,
    "mistral": _llama | {"sliding_window": 4},
    "qwen2": _llama | _windows | {"use_sliding_window": True},
    "qwen3": _llama | _windows | {"use_sliding_window": True},
    "gemma2": _llama | _windows | {"query_pre_attn_scalar": 8},
    "gemma3_text": _llama | _windows | {"query_pre_attn_scalar": 8},
    "smollm3": _llama | {"no_rope_layers": [1, 1, 0, 1, 0, 1], "pad_token_id": 0},
    "gpt2": {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64},
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": 64,
    },
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 64,
    },
}


def build(family: str, **changes: Any) -> PreTrainedModel:
    """A random model of ``family`` whose blocks differ from each other."""
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, vocab_size=50, **special | FAMILIES[family] | changes)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Away from the initial values: biases of 0 and norms of 1 would hide a mix-up.
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def by_hand(model: PreTrainedModel) -> PreTrainedModel:
    """A model built with fewer layers, into which the weights of KEPT are copied under their new numbers."""
    config = copy.deepcopy(model.config)
    for key in ("layer_types", "no_rope_layers"):
        if getattr(config, key, None) is not None:
            entries = getattr(config, key)
            # The class checks that the list is as long as the model is deep: both change together.
            vars(config)[key] = [entries[i] for i in KEPT]
    config.num_hidden_layers = len(KEPT)
    built = type(model)(type(config).from_dict(config.to_dict()))
    name, _ = decoder_blocks(built)
    weights = {}
    for key, value in model.state_dict().items():
        if key.startswith(f"{name}."):
            old, _, rest = key.removeprefix(f"{name}.").partition(".")
            if int(old) in KEPT:
                weights[f"{name}.{KEPT.index(int(old))}.{rest}"] = value
        else:
            weights[key] = value
    built.load_state_dict(weights)
    return built.eval()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 50, (2, 12))


@pytest.mark.parametrize("family", FAMILIES)
def test_is_the_model_with_those_blocks(family: str, ids: torch.Tensor) -> None:
    model = build(family)
    expected = by_hand(model)
    before = model(ids).logits
    prune_layers(model, KEPT)
    logits = model(ids).logits
    assert torch.equal(logits, expected(ids).logits)
    assert not torch.allclose(logits, before, atol=1e-3)
    assert model.config.num_hidden_layers == len(KEPT)


@pytest.mark.parametrize("family", FAMILIES)
def test_cache_changes_nothing(family: str, ids: torch.Tensor) -> None:
    model = build(family)
    prune_layers(model, KEPT)
    settings = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
    cached = model.generate(ids, use_cache=True, **settings)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **settings))
    # And one token at a time gives the logits of one pass.
    cache, steps = None, []
    for position in range(ids.shape[1]):
        out = model(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        steps.append(out.logits)
    assert cache is not None
    assert len(cache.layers) == len(KEPT)
    torch.testing.assert_close(torch.cat(steps, 1), model(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_loads_with_plain_transformers(family: str, ids: torch.Tensor, tmp_path: Path) -> None:
    model = build(family)
    prune_layers(model, KEPT)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()


def test_reload_in_a_fresh_process(ids: torch.Tensor, tmp_path: Path) -> None:
    model = build("qwen3")
    prune_layers(model, KEPT)
    model.save_pretrained(tmp_path / "student")
    torch.save({"ids": ids, "logits": model(ids).logits.detach()}, tmp_path / "expected.pt")
    code = """
import sys, torch
from transformers import AutoModelForCausalLM
expected = torch.load(sys.argv[1] + "/expected.pt")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/student")
assert torch.equal(model(expected["ids"]).logits, expected["logits"])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)


def test_training_goes_on(ids: torch.Tensor) -> None:
    model = build("llama")
    prune_layers(model, [1, 4])
    model(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("qwen2_moe", {"decoder_sparse_step": 2}),
    ],
)
def test_blocks_that_depend_on_their_place_are_refused(
    family: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
    monkeypatch.setitem(FAMILIES, "qwen2_moe", {k: v for k, v in _llama.items() if k != "head_dim"} | experts)
    model = build(family, **changes)
    with pytest.raises(InputError, match=r"model\.student\.keep_layers: blocks of \w+ depend on their place"):
        prune_layers(model, [0, 2, 3])


def test_index_lists_follow_their_blocks() -> None:
    shape = {k: v for k, v in _llama.items() if k != "head_dim"}
    experts = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
    config = AutoConfig.for_model("qwen2_moe", vocab_size=50, mlp_only_layers=[0, 3], **shape | experts)
    model = AutoModelForCausalLM.from_config(config)
    prune_layers(model, [2, 3, 5])
    assert model.config.mlp_only_layers == [1]


def test_block_influence_against_hidden_states(ids: torch.Tensor) -> None:
    model = build("llama")
    rows = [ids[0].tolist(), ids[1, :5].tolist(), []]
    cosines: list[list[float]] = [[] for _ in range(LAYERS)]
    inputs: list[torch.Tensor] = []
    for block in decoder_blocks(model)[1]:
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model.model.norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for row in rows[:2]:
        inputs.clear()
        model(torch.tensor([row]))
        for layer in range(LAYERS):
            for before, after in zip(inputs[layer][0].double(), inputs[layer + 1][0].double(), strict=True):
                cosines[layer].append((before @ after / (before.norm() * after.norm())).item())
    expected = [1 - sum(values) / len(values) for values in cosines]
    assert block_influence(model, rows) == pytest.approx(expected, abs=1e-6)


def test_block_influence_leaves_no_trace(ids: torch.Tensor) -> None:
    model = build("gpt2").train()
    decoder_blocks(model)[1][0].eval()
    before, modes = model.state_dict(), [module.training for module in model.modules()]
    block_influence(model, ids.tolist())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_idle_block_has_no_influence(ids: torch.Tensor) -> None:
    model = build("llama")
    idle = decoder_blocks(model)[1][3]
    with torch.no_grad():
        idle.self_attn.o_proj.weight.zero_()
        idle.mlp.down_proj.weight.zero_()
    influence = block_influence(model, ids.tolist())
    assert influence[3] == pytest.approx(0, abs=1e-6)
    assert min(influence) == influence[3]
    expected = model(ids).logits
    prune_layers(model, choose_layers(influence, LAYERS - 1))
    torch.testing.assert_close(model(ids).logits, expected)


def test_choose_layers() -> None:
    assert choose_layers([0.5, 0.1, 0.9, 0.3], 2) == [0, 2]
    assert choose_layers([0.5, 0.1, 0.9, 0.3], 4) == [0, 1, 2, 3]
    assert choose_layers([0.2, 0.2, 0.2], 2) == [0, 1]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_quantised_model_is_pruned_too(kind: str, family: str, tmp_path: Path) -> None:
    """Pruned in few bits = pruned in floats, then held in few bits."""
    from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
    from distil.models import load_student
    from distil.models.quantize import TEACHER_KINDS
    from tests.training import FAMILIES as TINY

    TINY[family](1, width=64, layers=3).save_pretrained(tmp_path / "whole")

    def load(path: str, keep: list[int] | None, quantized: bool) -> PreTrainedModel:
        student = StudentConfig(path=str(tmp_path / path), keep_layers=keep)
        keys = TEACHER_KINDS[kind] if quantized else None
        return load_student(ModelConfig("x", TeacherConfig(), student), 0, quantization=keys).model

    load("whole", [0, 2], False).save_pretrained(tmp_path / "pruned")
    expected, pruned = load("pruned", None, True), load("whole", [0, 2], True)
    ids = torch.tensor([[5, 9, 31, 12]])
    with torch.no_grad():
        assert torch.equal(pruned(ids).logits, expected(ids).logits)
