"""How many parameters an adapter trains: closed formulas, on GPT-2's own size and on a grouped Llama."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from distil.adapters.base import ADAPTERS
from distil.results import parameter_counts
from distil.types import InputError

# GPT-2 124M: width, blocks, width of the feed-forward layer.
D, L, F = 768, 12, 3072
GPT2 = 124_439_808
# A Llama whose keys and values are narrower than its queries.
WIDTH, KV, INNER, BLOCKS = 96, 32, 160, 5
TOKENS = 20


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config())


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=BLOCKS,
            num_attention_heads=6,
            num_key_value_heads=2,
        )
    )


def wrapped(build: Any, name: str, **keys: Any) -> PreTrainedModel:
    entry = ADAPTERS.get(name)
    assert entry.config is not None
    with torch.device("meta"):  # shapes, no numbers
        model: PreTrainedModel = entry.factory(entry.config(**keys)).wrap(build())
    return model


def mlp(width: int, hidden: int) -> int:
    """Weights and biases of P-tuning's three layers."""
    return (width * hidden + hidden) + (hidden * hidden + hidden) + (hidden * width + width)


def lstm(width: int, hidden: int, layers: int) -> int:
    """Both directions: four gates of two matrices and two biases a layer; then two linear layers."""
    sizes = [width] + [2 * hidden] * (layers - 1)
    recurrent = sum(2 * 4 * (size * hidden + hidden * hidden + 2 * hidden) for size in sizes)
    linear = (2 * hidden * 2 * hidden + 2 * hidden) + (2 * hidden * width + width)
    return recurrent + linear


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("none", {}, GPT2),
        ("lora", {"r": 8}, 294_912),
        ("lora", {"r": 64}, 64 * L * (D + 3 * D)),
        ("lora", {"target_modules": "all-linear"}, 8 * L * ((D + 3 * D) + 2 * D + 2 * (D + F))),
        ("lora", {"layers_to_transform": [0, 11]}, 8 * 2 * (D + 3 * D)),
        ("lora", {"modules_to_save": ["lm_head"]}, 294_912 + 50_257 * D),
        ("lora", {"bias": "lora_only"}, 294_912 + L * 3 * D),
        ("dora", {}, 294_912 + L * 3 * D),
        ("qlora", {}, 294_912),
        ("ia3", {}, L * (3 * D + F)),
        ("prefix", {}, TOKENS * 2 * L * D),
        (
            "prefix",
            {"prefix_projection": True, "encoder_hidden_size": 100},
            TOKENS * D + (D * 100 + 100) + (100 * 2 * L * D + 2 * L * D),
        ),
        ("prompt", {}, TOKENS * D),
        ("prompt", {"num_virtual_tokens": 7}, 7 * D),
        ("ptuning", {}, TOKENS * D + mlp(D, D)),
        (
            "ptuning",
            {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 50, "encoder_num_layers": 3},
            TOKENS * D + lstm(D, 50, 3),
        ),
    ],
)
def test_gpt2(name: str, keys: dict[str, Any], expected: int) -> None:
    """Trained, and the base beside it: its 124,439,808 are not changed by what is trained."""
    model = wrapped(gpt2, name, **keys)
    counts = parameter_counts(None, model)
    assert counts["trainable"] == expected == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts["student"] is not None
    own = 0 if name == "none" else expected - (L * 3 * D if "bias" in keys else 0)
    assert counts["student"] - own == GPT2


@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        ("lora", {"r": WIDTH}, False),  # the queries' own
        ("lora", {"r": WIDTH + 1}, True),
        ("dora", {"r": WIDTH + 1}, True),
        ("lora", {"r": WIDTH + 1, "rank_pattern": {"q_proj": WIDTH}}, False),
        ("lora", {"r": WIDTH + 1, "target_modules": ["q_proj", "embed_tokens"]}, True),
        ("ia3", {}, False),
        ("none", {}, False),
    ],
)
def test_a_rank_that_no_layer_can_have_is_told(name: str, keys: dict[str, Any], told: bool) -> None:
    """Where one layer can have it, nothing is said: it is rarely worth naming each."""
    entry = ADAPTERS.get(name)
    assert entry.config is not None
    line = entry.factory(entry.config(**keys)).odd_size(wrapped(llama, name, **keys))
    assert (line is not None) is told
    if line is not None:
        assert f"A rank of {WIDTH + 1} (peft.r) is more than the " in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lora", 8 * BLOCKS * ((WIDTH + WIDTH) + (WIDTH + KV))),
        ("dora", 8 * BLOCKS * ((WIDTH + WIDTH) + (WIDTH + KV)) + BLOCKS * (WIDTH + KV)),
        ("ia3", BLOCKS * (2 * KV + INNER)),
        ("prefix", TOKENS * 2 * BLOCKS * KV),
        ("prompt", TOKENS * WIDTH),
        ("ptuning", TOKENS * WIDTH + mlp(WIDTH, WIDTH)),
    ],
)
def test_grouped_keys(name: str, expected: int) -> None:
    """Keys and values have fewer heads: an adapter on them, or a prefix of them, is smaller."""
    assert parameter_counts(None, wrapped(llama, name))["trainable"] == expected


@pytest.mark.parametrize("name", ["prefix", "prompt", "ptuning"])
def test_a_prompt_as_long_as_the_context(name: str) -> None:
    """No row would fit behind it; one position fewer, and one token does."""
    with pytest.raises(InputError, match=r"peft\.num_virtual_tokens=1024: .*1024 positions"):
        wrapped(gpt2, name, num_virtual_tokens=1024)
    assert wrapped(gpt2, name, num_virtual_tokens=1023) is not None


def test_ia3_without_default_targets() -> None:
    """The message lists what could be named."""
    from transformers import Olmo2Config, Olmo2ForCausalLM

    def olmo() -> PreTrainedModel:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
        return Olmo2ForCausalLM(Olmo2Config(vocab_size=64, pad_token_id=0, num_attention_heads=2, **sizes))

    with pytest.raises(InputError, match=r"peft=ia3: .*olmo2.*k_proj.*down_proj"):
        wrapped(olmo, "ia3")
    keys = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    assert parameter_counts(None, wrapped(olmo, "ia3", **keys))["trainable"] == 16 + 16 + 32
