"""A teacher's K ids and the rest, against the dense teacher that they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.fused import Logits
from distil.head import Dense, Head, score
from distil.losses import Term, cross_entropy
from distil.slopes import Scratch, Slope
from distil.sparse import Sparse, add_slope
from distil.types import REFERENCE, InputError
from tests.training import name_of

if TYPE_CHECKING:
    from distil.losses import Score

N, H, V, SHARED = 9, 6, 31, 27
SCORES = [forward_kl, reverse_kl, GeneralizedJSD(0.1), GeneralizedJSD(0.5)]
each = pytest.mark.parametrize("divergence", SCORES, ids=name_of)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def student(seed: int = 0, dtype: torch.dtype = torch.float64) -> Dense:
    hidden, weight = draw(seed, N, H, dtype=dtype), draw(seed + 1, V, H, dtype=dtype) / 2
    return Dense(hidden.requires_grad_(), Head(weight.requires_grad_(), softcap=20.0))


def run(student: Dense, teacher: Dense | Sparse, *terms: Term, shared: int = SHARED) -> list[Tensor]:
    """Loss, sums, gradients of hidden states and weight."""
    loss, sums_K = score(student, torch.arange(N), terms, teacher, shared, chunk=4)
    assert student.head.weight_VH is not None
    return [loss.detach(), sums_K, *torch.autograd.grad(loss, (student.hidden_NH, student.head.weight_VH))]


def by_definition(
    student: Dense, teacher_NV: Tensor, ids_NK: Tensor, term: Term, shared: int = SHARED
) -> list[Tensor]:
    """The divergence of the two partitions, all in probabilities, by autograd."""
    assert student.head.weight_VH is not None
    logits_NV = student.head.logits(student.hidden_NH)

    def partition(x_NV: Tensor) -> Tensor:
        p_NV = (x_NV[:, :shared] / term.temperature).softmax(-1)
        others_NV = p_NV.scatter(-1, ids_NK, 0)
        return torch.cat([p_NV.gather(-1, ids_NK), others_NV.sum(-1, keepdim=True)], -1).log()

    total = term.score(partition(teacher_NV), partition(logits_NV)).sum()
    wanted = (student.hidden_NH, student.head.weight_VH)
    return [*torch.autograd.grad(term.weight * total, wanted), total.detach()]


@each
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, SHARED - 1),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    weight=st.floats(0.1, 10),
)
def test_value_and_gradient_are_those_of_the_partition(
    divergence: Score, seed: int, k: int, temperature: float, weight: float
) -> None:
    teacher_NV = draw(seed, N, SHARED)
    signal = Sparse.top(teacher_NV, k, (temperature,))
    term = Term(weight, REFERENCE, divergence, temperature)
    _, sums_K, *gradients = run(student(seed + 5), signal, term)
    *wanted, total = by_definition(student(seed + 5), teacher_NV, signal.ids_NK, term)
    torch.testing.assert_close(sums_K[0], total, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradients, wanted, rtol=1e-7, atol=1e-9)


@each
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_ids_are_the_dense_teacher(divergence: Score, temperature: float) -> None:
    teacher_NV = draw(3, N, SHARED)
    terms = (Term(0.5, REFERENCE, cross_entropy), Term(2.0, REFERENCE, divergence, temperature))
    signal = Sparse.top(teacher_NV, SHARED, (temperature,))
    assert signal.log_rest[temperature].tolist() == [-torch.inf] * N
    dense = run(student(), Dense(teacher_NV, Head(None)), *terms)
    torch.testing.assert_close(run(student(), signal, *terms), dense)


def test_more_ids_than_there_are_is_all_of_them() -> None:
    teacher_NV = draw(3, N, 5)
    more, all_5 = Sparse.top(teacher_NV, 9), Sparse.top(teacher_NV, 5)
    assert torch.equal(more.ids_NK, all_5.ids_NK)
    assert torch.equal(more.log_probabilities_NK, all_5.log_probabilities_NK)


def test_half_precision_logits_give_float32_log_probabilities() -> None:
    logits_NV = draw(3, N, SHARED, dtype=torch.bfloat16)
    signal, wanted = Sparse.top(logits_NV, 4), Sparse.top(logits_NV.float(), 4)
    assert signal.log_probabilities_NK.dtype == signal.log_rest[1.0].dtype == torch.float32
    torch.testing.assert_close(signal.log_probabilities_NK, wanted.log_probabilities_NK)
    torch.testing.assert_close(signal.log_rest, wanted.log_rest)


@each
def test_a_teacher_in_float32_is_taken_at_its_word_in_float64(divergence: Score) -> None:
    student = Logits(draw(0, N, SHARED), Scratch()).rows(None, 1.0)
    signal = Sparse.top(draw(3, N, SHARED, dtype=torch.float32), 4)
    stored = signal.outcomes(1.0)
    single, double = (
        add_slope(divergence, signal.ids_NK, each, student, 1.0, Slope(draw(0, N, SHARED)))
        for each in (stored, stored.double())
    )
    assert single.dtype == torch.float64
    assert torch.equal(single, double)


@each
def test_a_score_that_asks_the_teacher_alone_moves_nothing(divergence: Score) -> None:
    def constant(teacher_NO: Tensor, student_NO: Tensor) -> Tensor:
        return divergence(teacher_NO, teacher_NO.flip(-1))

    signal = Sparse.top(draw(3, N, SHARED), 4)
    loss, _, *gradients = run(student(), signal, Term(1.0, REFERENCE, constant))
    assert loss > 0
    assert all(x.count_nonzero() == 0 for x in gradients)


@each
def test_never_more_than_the_dense_value_and_more_ids_tell_more(divergence: Score) -> None:
    teacher_NV = draw(3, N, SHARED)
    term = Term(1.0, REFERENCE, divergence)
    values = [run(student(), Sparse.top(teacher_NV, k), term)[1].item() for k in (1, 2, 5, 12, 25)]
    values.append(run(student(), Dense(teacher_NV, Head(None)), term)[1].item())
    assert values[0] > 0
    assert values == sorted(values)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_at_equality(divergence: Score, dtype: torch.dtype) -> None:
    one = student(dtype=dtype)
    signal = Sparse.top(one.head.logits(one.hidden_NH).detach()[:, :SHARED], 5)
    loss, _, *gradients = run(one, signal, Term(1.0, REFERENCE, divergence))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert 0 <= loss <= tolerance
    assert all(x.abs().max() <= tolerance for x in gradients)


@each
def test_gradcheck(divergence: Score) -> None:
    signal = Sparse.top(draw(3, N, SHARED), 4, (2.0,))
    one = student()

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        dense = Dense(hidden, Head(weight, scale=0.5))
        return score(dense, torch.arange(N), [Term(1.3, REFERENCE, divergence, 2.0)], signal, SHARED)[0]

    assert torch.autograd.gradcheck(loss, (one.hidden_NH, one.head.weight_VH))


@each
def test_rows_with_fewer_ids(divergence: Score) -> None:
    """-1 fills a row: whatever stands there, the row is that of its real ids."""
    teacher_NV = draw(3, N, SHARED)
    signal = Sparse.top(teacher_NV, 3)
    filled = Sparse(
        torch.cat([signal.ids_NK, torch.full((N, 2), -1)], -1),
        torch.cat([signal.log_probabilities_NK, torch.full((N, 2), torch.nan)], -1),
        signal.log_rest,
    )
    term = Term(1.0, REFERENCE, divergence)
    torch.testing.assert_close(run(student(), filled, term), run(student(), signal, term))


def test_what_is_left_of_a_sharp_student_does_not_vanish() -> None:
    """1 - (1 - 1e-40) is 0 in any dtype; the log of the rest is not."""
    logits = torch.zeros(1, SHARED)
    logits[0, 0] = 200.0
    logits.requires_grad_()
    signal = Sparse.top(torch.eye(SHARED)[:1], 1)
    terms = [Term(1.0, REFERENCE, forward_kl)]
    loss, _ = score(Dense(logits, Head(None)), torch.tensor([0]), terms, signal, SHARED)
    loss.backward()
    p = torch.eye(SHARED)[0].softmax(-1)[0].double()
    log_rest = torch.tensor(SHARED - 1.0).double().log() - 200
    wanted = p * p.log() + (1 - p) * ((1 - p).log() - log_rest)
    torch.testing.assert_close(loss.detach().double(), wanted, rtol=1e-6, atol=0)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0, 1:].double(), -(1 - p).expand(SHARED - 1) / (SHARED - 1))


def test_ids_that_the_student_rules_out_on_both_sides() -> None:
    """-inf for teacher and student alike, in the rest: as if these ids were not there."""
    teacher_NV, logits_NV = draw(3, N, SHARED), draw(4, N, SHARED)
    teacher_NV[:, 20:] = logits_NV[:, 20:] = -torch.inf
    logits_NV.requires_grad_()
    signal, terms = Sparse.top(teacher_NV, 4), [Term(1.0, REFERENCE, x) for x in SCORES]
    ids = torch.arange(N)
    loss, _ = score(Dense(logits_NV, Head(None)), ids, terms, signal, SHARED)
    (gradient,) = torch.autograd.grad(loss, logits_NV)
    short_NV = logits_NV[:, :20].detach().requires_grad_()
    wanted, _ = score(Dense(short_NV, Head(None)), ids, terms, signal, 20)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(gradient[:, :20], torch.autograd.grad(wanted, short_NV)[0])
    assert gradient[:, 20:].count_nonzero() == 0


def test_a_temperature_that_is_not_stored_is_refused() -> None:
    signal = Sparse.top(draw(3, N, SHARED), 4, (1.0, 2.0))
    way_out = r"Store it at this temperature too, or use one of these\.$"
    with pytest.raises(InputError, match=rf"^method\.temperature=4\.0, .*\[1\.0, 2\.0\].* {way_out}"):
        run(student(), signal, Term(1.0, REFERENCE, forward_kl, 4.0))


def test_no_positions() -> None:
    signal = Sparse.top(draw(3, 0, SHARED), 4)
    one = student()
    empty = Dense(one.hidden_NH[:0], one.head)
    loss, _ = score(empty, torch.arange(0), [Term(1.0, REFERENCE, forward_kl)], signal, SHARED)
    loss.backward()
    assert loss.item() == 0
    assert one.head.weight_VH is not None
    assert one.head.weight_VH.grad is not None
