"""The divergences against hand numbers, float64 sums, and TRL where it is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import kl_div, nll_loss

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.losses import Term, cross_entropy
from distil.types import REFERENCE, ROLLOUT

P = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
Q = torch.tensor([[0.4, 0.4, 0.2]], dtype=torch.float64)
INF = math.inf


def rows(n: int = 8, v: int = 50, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, n, v, generator=generator, dtype=torch.float64)
    teacher, student = logits.log_softmax(-1)
    return teacher, student


def plain_kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


def test_hand_numbers() -> None:
    """KL(P||Q) = .7 ln(7/4) + .2 ln(1/2) + .1 ln(1/2) and so on: the direction is pinned."""
    assert forward_kl(P.log(), Q.log()).item() == pytest.approx(0.184, abs=5e-4)
    assert reverse_kl(P.log(), Q.log()).item() == pytest.approx(0.192, abs=5e-4)
    assert GeneralizedJSD(0.5)(P.log(), Q.log()).item() == pytest.approx(0.046, abs=5e-4)
    mixture = 0.1 * P + 0.9 * Q
    expected = 0.1 * plain_kl(P, mixture) + 0.9 * plain_kl(Q, mixture)
    assert GeneralizedJSD(0.1)(P.log(), Q.log()).item() == pytest.approx(expected.item(), rel=1e-12)
    assert GeneralizedJSD(0.1)(Q.log(), P.log()).item() != pytest.approx(expected.item(), rel=1e-3)


def test_kl_equals_torch() -> None:
    teacher, student = rows()
    expected = kl_div(student, teacher, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(forward_kl(teacher, student), expected)
    torch.testing.assert_close(reverse_kl(student, teacher), expected)


def test_cross_entropy_equals_torch() -> None:
    _, student = rows(8)
    ids = 6 * torch.arange(8)
    torch.testing.assert_close(cross_entropy(ids, student), nll_loss(student, ids, reduction="none"))


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, GeneralizedJSD(0.0), GeneralizedJSD(0.3)])
def test_outcomes_are_the_last_axis_of_any_shape(divergence: Callable[[Tensor, Tensor], Tensor]) -> None:
    teacher, student = rows(6)
    each = divergence(teacher, student)
    assert each.shape == (6,)
    torch.testing.assert_close(divergence(teacher[0], student[0]), each[0])
    folded = divergence(teacher.unflatten(0, (2, 3)), student.unflatten(0, (2, 3)))
    torch.testing.assert_close(folded.flatten(), each)


@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5, 0.9])
def test_jsd_equals_its_definition(weight: float) -> None:
    teacher, student = rows()
    mixture = weight * teacher.exp() + (1 - weight) * student.exp()
    expected = weight * plain_kl(teacher.exp(), mixture) + (1 - weight) * plain_kl(student.exp(), mixture)
    torch.testing.assert_close(GeneralizedJSD(weight)(teacher, student), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jsd_equals_trl_between_the_ends(beta: float) -> None:
    """TRL's beta is the teacher's share of the mixture, as our weight; only at 0 and 1 does it mean a KL."""
    trainer = pytest.importorskip("trl.experimental.gkd").GKDTrainer
    teacher, student = rows()
    theirs = trainer.generalized_jsd_loss(student[None], teacher[None], beta=beta, reduction="sum")
    # TRL keeps beta in a tensor of the rows' dtype; the logarithms differ in the last bits alone.
    torch.testing.assert_close(GeneralizedJSD(beta)(teacher, student).sum(), theirs, rtol=1e-9, atol=0)
    at_0 = trainer.generalized_jsd_loss(student[None], teacher[None], beta=0, reduction="sum")
    torch.testing.assert_close(forward_kl(teacher, student).sum(), at_0)


def test_jsd_at_and_near_the_ends() -> None:
    teacher, student = rows(scale=1.0)
    for end in (0, 1):
        student = student.detach().requires_grad_()
        value = GeneralizedJSD(end)(teacher, student)
        assert value.tolist() == [0.0] * len(teacher)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert gradient.count_nonzero() == 0
    small = 1e-6
    torch.testing.assert_close(
        GeneralizedJSD(small)(teacher, student) / small, forward_kl(teacher, student), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        GeneralizedJSD(1 - small)(teacher, student) / small, reverse_kl(teacher, student), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("weight", [1.5, -0.1, math.nan])
def test_jsd_refuses_weights_outside(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"^weight must lie in \[0, 1\], got {weight}\.$"):
        GeneralizedJSD(weight)


def test_impossible_outcomes() -> None:
    """0 log 0 = 0; mass where the other has none is infinite for a KL and ln 2 for a JSD."""
    half = math.log(0.5)
    both = torch.tensor([[half, half, -INF]])
    left = torch.tensor([[0.0, -INF, -INF]])
    right = torch.tensor([[-INF, 0.0, -INF]])
    assert forward_kl(left, both).item() == pytest.approx(math.log(2))
    assert forward_kl(both, left).item() == INF
    assert reverse_kl(both, left).item() == pytest.approx(math.log(2))
    assert GeneralizedJSD(0.5)(left, right).item() == pytest.approx(math.log(2))
    # A probability that underflows to 0 beside one that is 0.
    assert forward_kl(torch.tensor([[0.0, -200.0]]), left[:, :2]).item() == 0


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, GeneralizedJSD(0.0), GeneralizedJSD(0.3)])
def test_gradient_beside_impossible_outcomes(divergence: object) -> None:
    """A masked-out id on both sides leaves every gradient finite; on one side, every JSD's too."""
    everywhere = torch.tensor([[1.0, 2.0, 0.1, 0.5]])
    masked = everywhere.clone()
    masked[0, 2] = -INF
    assert callable(divergence)
    pairs = [(masked, masked + everywhere)]
    if isinstance(divergence, GeneralizedJSD):
        pairs += [(masked, everywhere), (everywhere, masked)]
    for teacher, student in pairs:
        logits = student.clone().requires_grad_()
        value = divergence(teacher.log_softmax(-1), logits.log_softmax(-1))
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, GeneralizedJSD(0.1), GeneralizedJSD(0.5)])
def test_large_vocabulary_in_float32(divergence: object) -> None:
    """At 152k ids and a divergence of 1e-4 nats float32 is right to 1e-5 nats and never negative."""
    generator = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(4, 152_000, generator=generator)
    student = teacher + 0.02 * torch.randn(4, 152_000, generator=generator)
    assert callable(divergence)
    ours = divergence(teacher.log_softmax(-1), student.log_softmax(-1))
    exact = divergence(teacher.double().log_softmax(-1), student.double().log_softmax(-1))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-5)
    assert (ours >= 0).all()


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, GeneralizedJSD(0.5)])
def test_rounding_leaves_nothing_below_0(divergence: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Rows 1e-5 apart diverge by 1e-10 nats, which float32 sums of 1000 outcomes cannot tell from 0."""
    generator = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(200, 1000, generator=generator)
    student = teacher + 1e-5 * torch.randn(200, 1000, generator=generator)
    value = divergence(teacher.log_softmax(-1), student.log_softmax(-1))
    assert (value >= 0).all()
    assert (value == 0).any()


def test_names_and_equality() -> None:
    """Terms are named after their score, and two mixtures of one weight are one divergence."""
    assert Term(1, REFERENCE, forward_kl).name == "forward_kl"
    assert Term(1, ROLLOUT, GeneralizedJSD(0.5)).name == "rollout_jsd"
    assert Term(1, REFERENCE, partial(forward_kl)).name == "partial"
    assert [Term(1, REFERENCE, score).needs_teacher for score in (cross_entropy, forward_kl)] == [False, True]
    assert GeneralizedJSD(0.5) == GeneralizedJSD(0.5) != GeneralizedJSD(0.4)
    assert len({GeneralizedJSD(0.5), GeneralizedJSD(0.5)}) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.99), st.integers(2, 30))
def test_identities(seed: int, weight: float, v: int) -> None:
    """Symmetry under exchange, the entropy bound, and a coarser partition that never diverges more."""
    teacher, student = rows(4, v, seed)
    value = GeneralizedJSD(weight)(teacher, student)
    torch.testing.assert_close(value, GeneralizedJSD(1 - weight)(student, teacher))
    bound = -weight * math.log(weight) - (1 - weight) * math.log1p(-weight)
    assert (value <= bound + 1e-12).all()
    for divergence in (forward_kl, reverse_kl, GeneralizedJSD(weight)):
        coarse = divergence(*(merge_tail(x) for x in (teacher, student)))
        assert (coarse <= divergence(teacher, student) + 1e-12).all()


def merge_tail(log_probabilities: Tensor) -> Tensor:
    return torch.cat([log_probabilities[:, :1], log_probabilities[:, 1:].logsumexp(-1, keepdim=True)], -1)
