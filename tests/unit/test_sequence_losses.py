"""The low-level losses of the library against scipy, position by position."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor

from distil.sequence_losses import (
    generalized_jsd_loss,
    sequence_kl_divergence,
    sequence_reverse_kl_divergence,
)

B, T, V = 3, 4, 7
LOSSES = (sequence_kl_divergence, sequence_reverse_kl_divergence, generalized_jsd_loss)


def reference(name: str, p: np.ndarray, q: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """The divergence of each row; p is the teacher's."""
    if name == "sequence_kl_divergence":
        return rel_entr(p, q).sum(-1)
    if name == "sequence_reverse_kl_divergence":
        return rel_entr(q, p).sum(-1)
    m = weight * p + (1 - weight) * q
    return weight * rel_entr(p, m).sum(-1) + (1 - weight) * rel_entr(q, m).sum(-1)


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    return 3 * torch.randn(B, T, V), 3 * torch.randn(B, T, V)


@pytest.fixture
def mask() -> Tensor:
    return torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_is_the_mean_over_unmasked_positions(
    loss: Callable[..., Tensor], temperature: float, logits: tuple[Tensor, Tensor], mask: Tensor
) -> None:
    teacher, student = logits
    p, q = (softmax(x.double().numpy() / temperature, axis=-1) for x in logits)
    each = reference(loss.__name__, p, q)
    value = loss(teacher, student, temperature=temperature, attention_mask=mask)
    assert value.item() == pytest.approx(each[mask.bool().numpy()].mean(), rel=1e-5)
    assert loss(teacher, student, temperature=temperature).item() == pytest.approx(each.mean(), rel=1e-5)


def test_the_mixture_weight_is_the_teachers(logits: tuple[Tensor, Tensor]) -> None:
    p, q = (softmax(x.double().numpy(), axis=-1) for x in logits)
    for weight in (0.1, 0.9):
        value = generalized_jsd_loss(*logits, lambda_weight=weight).item()
        assert value == pytest.approx(reference("jsd", p, q, weight).mean(), rel=1e-5)
        assert value != pytest.approx(reference("jsd", q, p, weight).mean(), rel=1e-2)


def test_direction_by_hand() -> None:
    p, q = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.4, 0.4, 0.2]]).log()
    assert sequence_kl_divergence(p, q).item() == pytest.approx(0.184, abs=5e-4)
    assert sequence_reverse_kl_divergence(p, q).item() == pytest.approx(0.192, abs=5e-4)
    assert generalized_jsd_loss(p, q).item() == pytest.approx(0.046, abs=5e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_arguments_cannot_be_mistaken(loss: Callable[..., Tensor]) -> None:
    parameters = list(inspect.signature(loss).parameters.values())
    assert [p.name for p in parameters[:2]] == ["teacher_logits", "student_logits"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[2:])
    teacher, student = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    assert loss(student_logits=student, teacher_logits=teacher) == loss(teacher, student)


@pytest.mark.parametrize("loss", LOSSES)
def test_vocabularies_of_two_sizes_are_cut_to_what_they_share(
    loss: Callable[..., Tensor], logits: tuple[Tensor, Tensor]
) -> None:
    teacher, student = logits
    assert torch.equal(loss(teacher, student[..., :5]), loss(teacher[..., :5], student[..., :5]))
    assert torch.equal(loss(teacher[..., :5], student), loss(teacher[..., :5], student[..., :5]))


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_in_masked_positions_reaches_neither_value_nor_gradient(
    loss: Callable[..., Tensor], logits: tuple[Tensor, Tensor], mask: Tensor
) -> None:
    clean_teacher, clean = logits[0], logits[1].clone().requires_grad_()
    loss(clean_teacher, clean, attention_mask=mask).backward()
    teacher, student = (x.masked_fill(~mask.bool()[..., None], math.nan) for x in logits)
    student.requires_grad_()
    value = loss(teacher.requires_grad_(), student, attention_mask=mask)
    value.backward()
    assert torch.equal(student.grad, clean.grad)
    assert teacher.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_no_position_left_is_zero_with_a_live_graph(
    loss: Callable[..., Tensor], logits: tuple[Tensor, Tensor]
) -> None:
    student = logits[1].requires_grad_()
    value = loss(logits[0], student, attention_mask=torch.zeros(B, T))
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_float32_whatever_comes_in(loss: Callable[..., Tensor], logits: tuple[Tensor, Tensor]) -> None:
    half = [x.bfloat16() for x in logits]
    assert loss(*half).dtype == torch.float32
    assert torch.equal(loss(*half), loss(*(x.float() for x in half)))


@pytest.mark.parametrize("loss", LOSSES)
def test_bad_input_is_named(loss: Callable[..., Tensor], logits: tuple[Tensor, Tensor]) -> None:
    teacher, student = logits
    for temperature in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"^temperature must be above 0 and finite, got {temperature}.$"):
            loss(teacher, student, temperature=temperature)
    with pytest.raises(ValueError, match=r"do not speak about the same positions: .* size must agree\.$"):
        loss(teacher[:, 1:], student)
    with pytest.raises(ValueError, match=r"^attention_mask is"):
        loss(teacher, student, attention_mask=torch.ones(B, T + 1))
    wrong: Any = loss
    for call, said in (
        (lambda: wrong(teacher, student.tolist()), r"^student_logits is a list: give a tensor\.$"),
        (
            lambda: wrong(SimpleNamespace(logits=teacher), student),
            r"^teacher_logits is a .*: give its \.logits\.$",
        ),
        (lambda: wrong(teacher, torch.tensor(1.0)), "^student_logits is one number"),
        (lambda: wrong(teacher, student.argmax(-1)), r"^student_logits holds torch.int64: .* token ids"),
        (lambda: wrong(teacher[..., :0], student), "^teacher_logits .* has no vocabulary"),
        (lambda: wrong(teacher, student, temperature="2"), "^temperature='2' is a str: give a number"),
        (lambda: wrong(teacher, student, temperature=True), "^temperature=True is a bool: give a number"),
        (lambda: wrong(teacher, student, attention_mask=[[1]]), "^attention_mask is a list: give a tensor"),
        (
            lambda: wrong(teacher, student, attention_mask=torch.full((B, T), 0.5)),
            "^attention_mask holds other values than 0 and 1",
        ),
        (
            lambda: wrong(teacher, student, attention_mask=torch.full((B, T), -100)),
            r"Of labels: attention_mask=labels != -100\.$",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_a_mixture_weight_beyond_its_range_is_named(logits: tuple[Tensor, Tensor]) -> None:
    for weight in (1.5, -0.1):
        with pytest.raises(ValueError, match=rf"^lambda_weight must lie in \[0, 1\], got {weight}\.$"):
            generalized_jsd_loss(*logits, lambda_weight=weight)
    nothing: Any = None
    with pytest.raises(ValueError, match=r"^lambda_weight=None is a NoneType: give a number"):
        generalized_jsd_loss(*logits, lambda_weight=nothing)
    assert [generalized_jsd_loss(*logits, lambda_weight=end).item() for end in (0, 1)] == [0, 0]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_last_axis_is_the_vocabulary_whatever_lies_before_it(
    loss: Callable[..., Tensor], logits: tuple[Tensor, Tensor]
) -> None:
    whole = loss(*logits)
    assert loss(*(x.flatten(0, 1) for x in logits)) == whole
    one_by_one = [
        loss(teacher, student) for teacher, student in zip(*(x.flatten(0, 1) for x in logits), strict=True)
    ]
    torch.testing.assert_close(torch.stack(one_by_one).mean(), whole)
