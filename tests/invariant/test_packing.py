"""Rows laid end to end give what padded rows give, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from distil.data.collate import collate
from distil.engine.anatomy import positions
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.packing import STRETCH, Packed, check_packable
from distil.types import InputError
from tests.training import (
    EOS,
    FAMILIES,
    METHOD_NAMES,
    VOCABULARY,
    Setup,
    build_method,
    distance,
    losses,
    random_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
}


FRESH = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
LINEAR = {
    "head_dim": 16, "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}  # fmt: skip


def mistral() -> PreTrainedModel:
    """A window shorter than rows: what lies before it must stay hidden, packed or not."""
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4))


def gemma2() -> PreTrainedModel:
    """Layers with and without a window, soft-capped logits."""
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, sliding_window=4))


def lora() -> PreTrainedModel:
    model: Any = get_peft_model(FAMILIES["llama"](1), LoraConfig(target_modules=["q_proj"], lora_dropout=0.5))
    return model


KINDS = ("sdpa", "eager")  # Gemma 2 has no sdpa
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: FAMILIES["llama"](1),
    "gpt2": lambda: FAMILIES["gpt2"](1),
    "mistral": mistral,
    "gemma2": gemma2,
    "lora": lora,
}


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    widest=st.sampled_from([None, 0, 20, 35, 1000]),
    left=st.booleans(),
)
def test_every_token_has_a_place_of_its_own(lengths: list[int], widest: int | None, left: bool) -> None:
    width = max(lengths)
    mask_BT = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    if left:
        mask_BT = mask_BT.flip(-1)
    layout = Packed.of(mask_BT, widest)
    ids_BT = torch.arange(1, mask_BT.numel() + 1).view_as(mask_BT)
    packed_RW, positions_RW = layout.pack(ids_BT), layout.pack(positions(mask_BT))
    assert packed_RW.shape == (layout.rows, layout.width)
    if widest == 0:
        assert packed_RW.shape == (1, sum(lengths))
    else:
        assert layout.rows * layout.width <= len(lengths) * width, "never more than padding"
        assert layout.width <= max(width, min(int(STRETCH * width), widest or 1000))
    assert sorted(packed_RW[packed_RW > 0].tolist()) == ids_BT[mask_BT.bool()].tolist()
    assert (packed_RW > 0).sum(-1).max() == layout.width, "no column is empty"
    for row, mask in zip(ids_BT, mask_BT.bool(), strict=True):
        at = (packed_RW == row[mask][0]).nonzero()[0]
        run = slice(int(at[1]), int(at[1]) + int(mask.sum()))
        assert packed_RW[at[0], run].tolist() == row[mask].tolist()
        assert positions_RW[at[0], run].tolist() == list(range(int(mask.sum())))


@pytest.mark.parametrize(
    ("name", "attention"),
    [("gemma2", "eager"), *((name, kind) for name in sorted(MODELS) if name != "gemma2" for kind in KINDS)],
)
def test_packed_rows_give_the_hidden_states_of_padded_ones(name: str, attention: str) -> None:
    model = MODELS[name]()
    model.set_attn_implementation(attention)
    check_packable(model, "it")
    batch = collate(random_rows(7, seed=3), EOS)
    scored_BT, _ = scored_and_targets(batch["labels"])
    found, wanted = (
        Forward(model, packing=packing)(batch["input_ids"], batch["attention_mask"], scored_BT)
        for packing in (True, False)
    )
    assert len(found.hidden_NH) == int(scored_BT.sum()) > 20
    torch.testing.assert_close(found.hidden_NH, wanted.hidden_NH, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_packing_changes_no_training(name: str, tmp_path: Path) -> None:
    """Twenty steps, rollouts included."""
    runs = [
        Setup(
            build_method(name),
            tmp_path / str(packing),
            steps=20,
            batch=4,
            accumulation=2,
            options={"packing": packing},
            # AdamW's sign at a gradient of about 0 would tell of rounding alone.
            arguments={"optim": "sgd", "learning_rate": 0.5},
        ).train()
        for packing in (True, False)
    ]
    assert distance(runs[0].model, FAMILIES["llama"](1)) > 1e-3
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)
    assert distance(runs[0].model, runs[1].model) < 1e-5


def test_no_padding_is_computed(tmp_path: Path) -> None:
    setup = Setup(build_method("kd"), tmp_path, steps=2, batch=6, options={"packing": True})
    trainer = setup.trainer()
    seen: list[tuple[int, int]] = []
    trainer.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    trainer.train()
    lengths = [len(row["input_ids"]) for row in setup.rows]
    assert seen
    assert all(rows < 6 and width <= STRETCH * max(lengths) for rows, width in seen)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2)), "Mamba"),
        (lambda: Lfm2ForCausalLM(Lfm2Config(**FRESH, layer_types=["conv", "full_attention"])), "Lfm2"),
        (
            lambda: Qwen3NextForCausalLM(
                Qwen3NextConfig(**FRESH, **LINEAR, layer_types=["linear_attention", "full_attention"])
            ),
            "Qwen3Next",
        ),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=2)), "Bloom"),
        (
            lambda: get_peft_model(
                FAMILIES["llama"](1), PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
            ),
            "learnt prompt",
        ),
    ],
    ids=["mamba", "lfm2", "qwen3-next", "bloom", "prefix"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_mixes_rows_is_refused(model: Any, reason: str, dtype: torch.dtype) -> None:
    """Fresh ones, too, whose small logits move by little; in half precision by less than is rounded."""
    torch.manual_seed(0)
    with pytest.raises(InputError, match=f"run.packing=true: the student .*{reason}"):
        check_packable(model().to(dtype), "the student")
