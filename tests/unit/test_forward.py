"""Hidden states and head give the model's own logits, whatever the family does between the two."""

from __future__ import annotations

import inspect
import logging
import math
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from distil.config.schema import RolloutConfig
from distil.engine.anatomy import trained_length
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.packing import check_packable, rounded, tf32
from distil.engine.rollouts import generate, uniforms
from distil.types import IGNORE_INDEX, InputError

VOCABULARY = 64
LENGTHS = (14, 9, 5, 12)
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": False},
    "Gemma2": {"final_logit_softcapping": 0.1, "sliding_window": 4, "head_dim": 8},
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 8.0},
    "GPTNeoX": {},
    "Bloom": {"n_layer": 2, "n_head": 2},
    "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 8},
}
PLAIN = {"OPT"}
"""Families whose body is called past its own forward: their full logits are used."""


def build(family: str) -> PreTrainedModel:
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    config = getattr(transformers, f"{family}Config")(**(sizes | FAMILIES[family]))
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return model


@pytest.fixture(scope="module")
def ids_BT() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(2, VOCABULARY, (len(LENGTHS), max(LENGTHS)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_own_logits(
    family: str, dtype: torch.dtype, ids_BT: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """Row by row without padding and without us: the same numbers (traps 9 and 14)."""
    model = build(family).to(dtype)
    mask_BT = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    labels_BT = torch.where(mask_BT.bool(), ids_BT, IGNORE_INDEX)
    labels_BT[:, :2] = IGNORE_INDEX
    scored_BT, _ = scored_and_targets(labels_BT)
    once, another = Forward(model), Forward(model)  # as training and each evaluation have their own
    with caplog.at_level(logging.WARNING, "distil"), torch.no_grad():
        for forward in (once, once, another):
            dense = forward(ids_BT, mask_BT, scored_BT)
        expected = [
            model(ids_BT[i : i + 1, :length]).logits[0][scored_BT[i, :length]].float()
            for i, length in enumerate(LENGTHS)
        ]
    tolerance = 1e-6 if dtype == torch.float32 else 5e-3
    assert torch.allclose(dense.head.logits(dense.hidden_NH), torch.cat(expected), atol=tolerance)
    assert (dense.head.weight_VH is None) is (family in PLAIN)
    assert len(caplog.records) == (family in PLAIN), "said once where the plain road is taken"


def test_a_soft_cap_in_the_text_config_of_a_composite_model(ids_BT: torch.Tensor) -> None:
    """Gemma 3n and 4 have theirs there; small logits do not show it."""
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 16,
        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "pad_token_id": 1,
    }  # fmt: skip
    seen = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 16,
    }  # fmt: skip
    config = transformers.Gemma4Config(
        text_config=sizes | {"final_logit_softcapping": 0.1}, vision_config=seen, audio_config=None
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    scored_BT, _ = scored_and_targets(ids_BT)
    with torch.no_grad():
        dense = Forward(model)(ids_BT, torch.ones_like(ids_BT), scored_BT)
        wanted = model(ids_BT).logits[scored_BT]
    assert dense.head.softcap == 0.1
    assert torch.allclose(dense.head.logits(dense.hidden_NH), wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_of_another_kind_is_seen_where_its_logits_are_small(
    dtype: torch.dtype, ids_BT: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """A soft cap that we do not know: of a fresh student, whose logits will grow."""
    model = build("Llama").to(dtype)
    own = model.forward
    model.forward = lambda *a, **k: _capped(own(*a, **k))  # type: ignore[method-assign]
    model.forward.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    scored_BT, _ = scored_and_targets(ids_BT)
    with torch.no_grad():
        assert own(ids_BT).logits.abs().max() < 0.5
        dense = Forward(model)(ids_BT, torch.ones_like(ids_BT), scored_BT)
    assert dense.head.weight_VH is None
    assert "full logits are used" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_rollouts_depend_on_no_neighbour(family: str, ids_BT: torch.Tensor) -> None:
    """One batch with padding and a cache, or row by row: the same tokens, sliding windows too."""
    model = build(family)
    prompts = [ids_BT[i, :length].tolist() for i, length in enumerate(LENGTHS)]
    noise = uniforms(0, 0, range(len(prompts)), 12)

    def write(rows: list[int]) -> list[list[int]]:
        written = generate(
            model,
            [prompts[i] for i in rows],
            RolloutConfig(max_new_tokens=12),
            eos_ids=[1],
            pad_id=1,
            uniforms=noise[rows],
        )
        return [answer.ids for answer in written]

    together = write([0, 1, 2, 3])
    assert together == [write([i])[0] for i in range(len(prompts))]


def test_only_ids_of_the_vocabulary_are_written(ids_BT: torch.Tensor) -> None:
    """What teacher and student share may be less than what the student could say."""
    model = build("Llama")
    (answer,) = generate(
        model,
        [ids_BT[0].tolist()],
        RolloutConfig(max_new_tokens=40),
        eos_ids=[],
        pad_id=1,
        uniforms=uniforms(0, 0, [0], 40),
        vocabulary=9,
    )
    assert len(set(answer.ids)) > 3
    assert max(answer.ids) < 9


def test_under_autocast_the_head_is_still_recognised(
    ids_BT: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """Mixed precision rounds the model's own logits; that is no reason to hold all of them."""
    model = build("Llama")
    mask_BT = torch.ones_like(ids_BT)
    scored_BT, _ = scored_and_targets(ids_BT)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        whole = model(ids_BT).logits
        # What accelerate does to a model that it prepared: float32 comes out, rounded all the same.
        run = model.forward
        model.forward = lambda *a, **k: _widened(run(*a, **k))  # type: ignore[method-assign]
        model.forward.__signature__ = inspect.signature(run)  # type: ignore[attr-defined]
        dense = Forward(model)(ids_BT, mask_BT, scored_BT)
        logits = dense.head.logits(dense.hidden_NH)
    assert dense.head.weight_VH is not None
    assert not caplog.records
    assert torch.allclose(logits, whole[scored_BT].float(), atol=5e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_no_head_of_another_kind(
    bad: float, ids_BT: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """The fused road stays, and hands on what the loss then says; nor are its packed rows blamed."""
    model = build("Llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = bad
        check_packable(model, "the student")
        scored_BT, _ = scored_and_targets(ids_BT)
        dense = Forward(model)(ids_BT, torch.ones_like(ids_BT), scored_BT)
    assert dense.head.weight_VH is not None
    assert not dense.head.logits(dense.hidden_NH).isfinite().all()
    assert not caplog.records


@pytest.mark.parametrize("whole", [True, False])
def test_a_head_of_another_kind_is_seen_beside_and_after_logits_that_are_no_numbers(
    whole: bool, ids_BT: torch.Tensor
) -> None:
    """One row overflowed, or all of the first batch: what is left to look at tells, then or later."""
    model = build("Llama")
    scored_BT, _ = scored_and_targets(ids_BT)
    forward = Forward(model)
    body: Any = model.base_model

    def spoil(_module: Any, _args: Any, output: Any) -> None:
        output[0][slice(None if whole else 1)].fill_(math.inf)

    spoiled = body.register_forward_hook(spoil)
    own = model.forward
    halved: Any = lambda *a, **k: _halved(own(*a, **k))  # noqa: E731  # a head that no matrix product gives
    halved.__signature__ = inspect.signature(own)
    model.forward = halved
    with torch.no_grad():
        forward(ids_BT, torch.ones_like(ids_BT), scored_BT)
        spoiled.remove()
        dense = forward(ids_BT, torch.ones_like(ids_BT), scored_BT)
        wanted = model(ids_BT).logits[scored_BT]
    assert torch.allclose(dense.head.logits(dense.hidden_NH), wanted, atol=1e-6)


def _capped(output: Any) -> Any:
    output.logits = 30 * torch.tanh(output.logits / 30)
    return output


def _halved(output: Any) -> Any:
    output.logits = output.logits / 2
    return output


def test_tf32_is_known_whichever_way_it_was_set(request: pytest.FixtureRequest) -> None:
    """A float32 model of a GPU is compared within what its products know. Nothing of a CPU is in TF32."""
    before = torch.get_float32_matmul_precision()
    request.addfinalizer(lambda: torch.set_float32_matmul_precision(before))
    for precision, is_on in (("high", True), ("highest", False), ("medium", True), ("highest", False)):
        torch.set_float32_matmul_precision(precision)
        assert tf32() is is_on
        assert not rounded(torch.zeros(1))
    assert rounded(torch.zeros(1, dtype=torch.bfloat16))


def test_tf32_of_the_new_key(request: pytest.FixtureRequest) -> None:
    """That of torch 2.9, which transformers sets."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9")
    matmul = torch.backends.cuda.matmul
    before = torch.backends.fp32_precision, matmul.fp32_precision
    request.addfinalizer(lambda: setattr(torch.backends, "fp32_precision", before[0]))
    request.addfinalizer(lambda: setattr(matmul, "fp32_precision", before[1]))
    matmul.fp32_precision = "none"
    for precision in ("tf32", "ieee"):
        torch.backends.fp32_precision = precision
        assert tf32() is (precision == "tf32")


def _widened(output: Any) -> Any:
    output.logits = output.logits.float()
    return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_added_to_logits_is_seen(dtype: torch.dtype, ids_BT: torch.Tensor) -> None:
    model = build("Llama").to(dtype)
    torch.manual_seed(2)
    more_V = (0.5 * torch.randn(VOCABULARY)).to(dtype)
    own = model.forward
    model.forward = lambda *a, **k: _with(own(*a, **k), more_V)  # type: ignore[method-assign]
    model.forward.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    scored_BT, _ = scored_and_targets(ids_BT)
    with torch.no_grad():
        dense = Forward(model)(ids_BT, torch.ones_like(ids_BT), scored_BT)
    assert dense.head.weight_VH is None


def test_every_batch_costs_the_same_forwards(ids_BT: torch.Tensor) -> None:
    """With models in parts all processes must call alike, whatever rows each has; loud float16 overflows."""
    model = build("Llama").to(torch.float16)
    with torch.no_grad():
        model.model.norm.weight.mul_(100)
    scored_BT, _ = scored_and_targets(ids_BT)
    counts = []
    for shift in range(4):
        calls: list[int] = []
        handle = model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with torch.no_grad():
            Forward(model)(ids_BT.roll(shift, 1), torch.ones_like(ids_BT), scored_BT)
        handle.remove()
        counts.append(len(calls))
    assert counts == [3] * 4


def test_packed_rows_that_are_no_numbers_are_refused() -> None:
    model = build("Llama")
    own = model.forward
    model.forward = lambda **k: _with(own(**k), torch.nan if "position_ids" in k else 0.0)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="does not keep packed rows apart"):
        check_packable(model, "the student")


def _with(output: Any, more: Any) -> Any:
    output.logits = output.logits + more
    return output


@pytest.mark.parametrize(("kind", "length"), [("yarn", 128), ("llama3", 64), (None, 64)])
def test_a_stretched_model_is_made_for_longer_rows(kind: str | None, length: int) -> None:
    """Llama 3's factor is no stretch: its config says the whole length already."""
    rope = {"rope_type": kind, "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
    model = build("Llama")
    if kind:
        model.config.rope_parameters = rope
    assert trained_length(model) == length
