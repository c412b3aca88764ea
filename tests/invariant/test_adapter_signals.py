"""Behind an adapter: rows do not feel their padding or their neighbours, learnt positions are never scored,
and both roads to the loss give the same (traps 14, 21, 42)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from distil.config.schema import RolloutConfig
from distil.data.collate import collate
from distil.engine.anatomy import plain_head, position_limit, virtual_tokens
from distil.engine.forward import Forward, scored_and_targets
from distil.engine.rollouts import Generated, generate, uniforms
from distil.head import score
from distil.types import IGNORE_INDEX
from tests.adapters import ADAPTED, adapter_of, load, save_bases, stir
from tests.training import EOS, FAMILIES, VOCABULARY, build_method, random_rows

PROMPTS = [[5, 9, 31, 7, 12, 40, 2], [33], [8, 8, 21], [50, 3, 17, 44, 9, 62, 11, 30, 6, 6, 13], [5, 9]]
LEARNT = [case for case in ADAPTED if adapter_of(case).virtual_tokens]
NEW = 12


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(params=sorted(FAMILIES))
def base(request: pytest.FixtureRequest, bases: Path) -> Path:
    return bases / str(request.param)


def stirred(base: Path, case: str, **keys: Any) -> PreTrainedModel:
    """A student whose adapter does something, in train mode as while training."""
    student = load(base, case, **keys)
    stir(student)
    return student.train()


def write(
    model: PreTrainedModel, prompts: list[list[int]], noise: Tensor | None, **more: Any
) -> list[Generated]:
    settings: dict[str, Any] = {"eos_ids": [EOS], "pad_id": EOS, "uniforms": noise}
    return generate(model, prompts, RolloutConfig(max_new_tokens=NEW), **(settings | more))


@pytest.mark.parametrize("case", ADAPTED)
def test_generation_is_that_of_each_row_alone(case: str, base: Path) -> None:
    """Mixed lengths in one batch, greedy and sampled: what each row writes alone, and in another order."""
    model = stirred(base, case)
    noise = uniforms(3, 1, range(len(PROMPTS)), NEW)
    for chance in (None, noise):
        together = write(model, PROMPTS, chance)
        assert len({tuple(row.ids) for row in together}) > 2
        for i, prompt in enumerate(PROMPTS):
            alone = write(model, [prompt], None if chance is None else chance[i : i + 1])
            assert alone == [together[i]]
        backwards = write(model, PROMPTS[::-1], None if chance is None else chance.flip(0))
        assert backwards == together[::-1]
    assert model.training


@pytest.mark.parametrize("case", ADAPTED)
def test_greedy_is_the_models_own_next_token(case: str, base: Path) -> None:
    """Token by token without a cache, by PEFT's own forward on rows without padding."""
    model = stirred(base, case)
    rows = write(model, PROMPTS, None, eos_ids=[])
    model.train(False)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for token in row.ids:
                assert token == int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
                ids.append(token)


@pytest.mark.parametrize("case", LEARNT)
def test_the_signal_is_pefts_own_logits_without_the_learnt_positions(case: str, base: Path) -> None:
    """Row by row, cut by hand: prompt and P-tuning put their positions into the output, a prefix does not."""
    model = stirred(base, case)
    batch = collate(random_rows(6), EOS)
    scored, targets = scored_and_targets(batch["labels"])
    forward = Forward(model)
    with torch.no_grad():
        dense = forward(batch["input_ids"], batch["attention_mask"], scored)
    ours = dense.head.logits(dense.hidden_NH)

    learnt = virtual_tokens(model)
    assert learnt == 6
    theirs = []
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], scored, strict=True):
        length = int(mask.sum())
        with torch.no_grad():
            logits = model(input_ids=ids[None, :length]).logits[0]
        assert len(logits) == length + (0 if case == "prefix" else learnt)
        theirs.append(logits[-length:][row[:length]])
    assert torch.allclose(ours, torch.cat(theirs), atol=2e-5)
    assert len(targets) == len(ours)


@pytest.mark.parametrize("case", LEARNT)
def test_the_loss_is_pefts_own(case: str, base: Path) -> None:
    """Cross-entropy of one row: the built-in loss of the wrapped model, learnt positions and all."""
    model = stirred(base, case).train(False)
    ids = torch.tensor([[5, 9, 31, 7, 12, 40, EOS]])
    labels = ids.clone()
    labels[:, :3] = IGNORE_INDEX
    scored, targets = scored_and_targets(labels)
    terms = build_method("sft").terms(0)
    with torch.no_grad():
        loss, _ = score(Forward(model)(ids, torch.ones_like(ids), scored), targets, terms, None, VOCABULARY)
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
    assert loss.item() / len(targets) == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("case", ADAPTED)
def test_more_padding_changes_nothing(case: str, base: Path) -> None:
    """Five more columns on the right move nothing; a learnt prompt refuses them on the left."""
    model, teacher = stirred(base, case), FAMILIES["llama"](2).eval()
    batch = collate(random_rows(5), EOS)

    def outcome(columns: int) -> tuple[float, Tensor]:
        ids = F.pad(batch["input_ids"], (0, columns), value=EOS)
        mask = F.pad(batch["attention_mask"], (0, columns), value=0)
        labels = F.pad(batch["labels"], (0, columns), value=IGNORE_INDEX)
        scored, targets = scored_and_targets(labels)
        with torch.no_grad():
            signal = Forward(teacher)(ids, mask, scored)
        model.zero_grad()
        terms = build_method("kd").terms(0)
        loss, _ = score(Forward(model)(ids, mask, scored), targets, terms, signal, VOCABULARY)
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return loss.item(), torch.cat(gradients)

    value, gradient = outcome(0)
    other, other_gradient = outcome(5)
    assert other == pytest.approx(value, rel=1e-5)
    assert torch.allclose(gradient, other_gradient, atol=1e-5 * float(gradient.abs().max()), rtol=1e-3)
    if case in LEARNT:
        left = F.pad(batch["input_ids"], (5, 0), value=EOS), F.pad(batch["attention_mask"], (5, 0), value=0)
        with pytest.raises(ValueError, match="padded on the right"):
            Forward(model)(*left, torch.ones_like(left[0], dtype=torch.bool))


@pytest.mark.parametrize("case", LEARNT)
def test_room_in_a_table_of_positions(case: str, bases: Path) -> None:
    """What the prompt takes is gone: rows stop where the table ends, and a longer one is refused."""
    model = stirred(bases / "gpt2", case)
    limit = position_limit(model)
    assert limit == 128 - 6
    prompt = [5] * (limit - 3)
    (row,) = write(model, [prompt], None, eos_ids=[])
    assert len(row.ids) == 3
    assert not row.ended
    with pytest.raises(ValueError, match="122 positions"):
        write(model, [[5] * (limit + 1)], None)


# ---- roads


FUSED = [
    ("lora", {}),
    ("dora", {"target_modules": "all-linear"}),
    ("qlora-4", {}),
    ("ia3", {}),
    ("lora", {"bias": "all"}),
    *((case, {}) for case in LEARNT),
]


def _value_and_gradients(
    model: PreTrainedModel, forward: Forward, teacher: Any
) -> tuple[float, list[Tensor]]:
    batch = collate(random_rows(6), EOS)
    scored, targets = scored_and_targets(batch["labels"])
    with torch.no_grad():
        signal = Forward(teacher)(batch["input_ids"], batch["attention_mask"], scored)
    model.zero_grad()
    dense = forward(batch["input_ids"], batch["attention_mask"], scored)
    loss, _ = score(dense, targets, build_method("kd").terms(0), signal, VOCABULARY)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(("case", "keys"), FUSED)
def test_fused_road_is_the_plain_road(case: str, keys: dict[str, Any], base: Path) -> None:
    model, teacher = stirred(base, case, **keys), FAMILIES["llama"](2).eval()
    assert plain_head(model) is not None
    fused, plain = Forward(model), Forward(model)
    plain._fused = False
    value, gradients = _value_and_gradients(model, fused, teacher)
    other, others = _value_and_gradients(model, plain, teacher)
    assert fused._fused, "the hidden states and the head give the model's own logits"
    assert value == pytest.approx(other, rel=1e-5)
    largest = max(float(g.abs().max()) for g in others)
    for ours, theirs in zip(gradients, others, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5 * largest, rtol=1e-3)


@pytest.mark.parametrize("key", ["target_modules", "modules_to_save"])
def test_a_trained_head_takes_the_plain_road(key: str, base: Path) -> None:
    """The loss and gradient of the model's own logits; the head's adapter, or the head, has a gradient."""
    attention = {"gpt2": "c_attn", "llama": "v_proj"}[base.name]
    names = [attention, "lm_head"] if key == "target_modules" else ["lm_head"]
    model, teacher = stirred(base, "lora", **{key: names}), FAMILIES["llama"](2).eval()
    assert plain_head(model) is None
    value, gradients = _value_and_gradients(model, Forward(model), teacher)
    assert len(gradients) == sum(p.requires_grad for p in model.parameters())
    assert all(bool(g.any()) for g in gradients)

    batch = collate(random_rows(6), EOS)
    scored, targets = scored_and_targets(batch["labels"])
    mask = batch["attention_mask"]
    model.zero_grad()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    student = model(input_ids=batch["input_ids"], attention_mask=mask, position_ids=positions).logits[scored]
    with torch.no_grad():
        taught = teacher(input_ids=batch["input_ids"], attention_mask=mask).logits[scored]
    divergence = 4 * F.kl_div(
        (student / 2).log_softmax(-1), (taught / 2).log_softmax(-1), log_target=True, reduction="sum"
    )
    naive = 0.5 * F.cross_entropy(student, targets, reduction="sum") + 0.5 * divergence
    assert value == pytest.approx(naive.item(), rel=1e-5)
    naive.backward()
    expected = [p.grad for p in model.parameters() if p.grad is not None]
    largest = max(float(g.abs().max()) for g in expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5 * largest, rtol=1e-3)
