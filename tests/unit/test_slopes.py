"""Slopes in closed form against the formulas, autograd and float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.fused import Logits, add_terms, blocks
from distil.losses import Term, cross_entropy
from distil.slopes import Scratch, Slope, slope_of
from distil.types import REFERENCE
from tests.tensors import Watch, place
from tests.training import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distil.losses import Score

N, V = 5, 23
CLOSED = [forward_kl, reverse_kl, *(GeneralizedJSD(w) for w in (0.0, 0.1, 0.5, 0.9, 1.0))]


def logits(seed: int, scale: float = 3.0, v: int = V, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(N, v, generator=generator, dtype=torch.float64)).to(dtype)


def values_and_slope(
    student: Tensor,
    ids: Tensor,
    terms: Sequence[Term],
    teacher: Tensor | None,
    shared: int = V,
    by_formula: bool = False,
) -> tuple[Tensor, Tensor]:
    """The slope is written over the logits, as the head has it."""
    scratch, place = Scratch(), student.clone()
    signal, slope = None if teacher is None else Logits(teacher, scratch), Slope(place)
    values_KN = add_terms(Logits(place, scratch), ids, terms, signal, shared, slope, by_formula)
    assert slope.so_far() is place
    return values_KN, place


def ours(
    student: Tensor, teacher: Tensor, term: Term, shared: int = V, by_formula: bool = False
) -> tuple[Tensor, Tensor]:
    """Values of one term and its weighted slope along the logits."""
    ids = torch.arange(len(student)) % student.shape[-1]
    values_KN, slope_NV = values_and_slope(student, ids, (term,), teacher, shared, by_formula)
    return values_KN[0], slope_NV


def expected(student: Tensor, teacher: Tensor, term: Term, shared: int = V) -> tuple[Tensor, Tensor]:
    """The same from the divergence's own formula and autograd, in float64."""
    leaf = student.detach().double().requires_grad_()
    rows = [(x[:, :shared] / term.temperature).log_softmax(-1) for x in (teacher.double(), leaf)]
    values = term.score(*rows)
    (slope,) = torch.autograd.grad(term.weight * values.sum(), leaf)
    return values.detach(), slope


@pytest.mark.parametrize("score", CLOSED, ids=name_of)
@pytest.mark.parametrize("by_formula", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.25, 0.7, 1.0, 2.0, 10.0]),
    weight=st.floats(0.01, 100),
    scale=st.sampled_from([0.0, 0.1, 3.0, 30.0]),
    shared=st.integers(1, V),
    extra=st.integers(0, 4),
)
def test_closed_form_is_the_formula(
    score: Score,
    by_formula: bool,
    seed: int,
    temperature: float,
    weight: float,
    scale: float,
    shared: int,
    extra: int,
) -> None:
    """At any temperature, weight and shared vocabulary, whichever of the two models has ids of its own."""
    student, teacher = logits(seed, scale), logits(seed + 1, v=V + extra)
    term = Term(weight, REFERENCE, score, temperature)
    assert slope_of(score) is not None
    found, wanted = (
        ours(student, teacher, term, shared, by_formula),
        expected(student, teacher, term, shared),
    )
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-9, atol=1e-11 * weight / temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_cross_entropy_is_torchs(temperature: float) -> None:
    leaf = logits(0).requires_grad_()
    ids = torch.arange(N)
    wanted = torch_cross_entropy(leaf / temperature, ids, reduction="none")
    (slope,) = torch.autograd.grad(0.7 * wanted.sum(), leaf)
    term = Term(0.7, REFERENCE, cross_entropy, temperature)
    found = values_and_slope(leaf.detach(), ids, (term,), None, 3)
    torch.testing.assert_close(found[0][0], wanted.detach())
    torch.testing.assert_close(found[1], slope)


@pytest.mark.parametrize("score", CLOSED, ids=name_of)
@pytest.mark.parametrize("scale", [3.0, 200.0])
def test_float32_at_a_large_vocabulary(score: Score, scale: float) -> None:
    """Few nats of error in a million, also where most probabilities underflow; never below 0."""
    v = 50_000
    teacher = logits(0, scale, v, torch.float32)
    for step in (1e-3, 1.0):
        student = teacher + step * logits(1, 1.0, v, torch.float32)
        term = Term(1.0, REFERENCE, score)
        found, wanted = ours(student, teacher, term, v), expected(student, teacher, term, v)
        assert (found[0] >= 0).all()
        # A logit of 800 is itself known to 6e-5.
        torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-4, atol=2e-6 * max(1, scale / 4))
        torch.testing.assert_close(found[1].double(), wanted[1], rtol=1e-3, atol=1e-6 * max(1, scale / 4))


@pytest.mark.parametrize("end", [0, 1])
def test_the_ends_of_the_mixture_are_exactly_0(end: float) -> None:
    value, slope = ours(logits(0), logits(1), Term(1.0, REFERENCE, GeneralizedJSD(end)))
    assert value.count_nonzero() == slope.count_nonzero() == 0


@pytest.mark.parametrize("score", CLOSED, ids=name_of)
def test_closed_forms_want_no_autograd(score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise RuntimeError("autograd was asked")

    monkeypatch.setattr(torch.autograd, "grad", asked)
    ours(logits(0), logits(1), Term(1.0, REFERENCE, score))
    with pytest.raises(RuntimeError, match="autograd was asked"):
        ours(logits(0), logits(1), Term(1.0, REFERENCE, score), by_formula=True)


@pytest.mark.parametrize("score", CLOSED, ids=name_of)
def test_later_blocks_use_the_memory_of_the_first(score: Score) -> None:
    scratch, terms = Scratch(), [Term(0.5, REFERENCE, cross_entropy), Term(1.0, REFERENCE, score, 2.0)]
    large = []
    for seed in range(3):
        student, teacher = (Logits(logits(seed + i), scratch) for i in (0, 9))
        with Watch() as watch:
            add_terms(student, torch.arange(N), terms, teacher, V, Slope(student.logits_NV), False)
        scratch.clear()
        large.append(sum(size >= N * V for size in watch.fresh))
    assert large[0] > 0
    assert large[1:] == [0, 0]


def test_scratch_hands_out_each_place_once_until_it_is_cleared() -> None:
    scratch, block = Scratch(), logits(0)
    first, second = scratch.like(block), scratch.like(block)
    assert place(first) != place(second)
    scratch.clear()
    shorter, same = scratch.like(block[:3]), scratch.like(block)  # the last block of a chunk is shorter
    assert [place(shorter), place(same)] == [place(first), place(second)]
    assert shorter.shape == (3, V)
    scratch.clear()
    assert scratch.like(torch.cat([block, block])).shape == (2 * N, V)
    narrow, single = scratch.like(block[:, :7]), scratch.like(block.float())
    assert (narrow.shape, single.dtype) == ((N, 7), torch.float32)


def test_a_slope_begins_wherever_its_first_addend_is() -> None:
    """What stood in its place does not matter, NaN neither."""
    ones = torch.ones(N, V)
    narrow_first, wide_first = (Slope(torch.full((N, V), torch.nan)) for _ in range(2))
    assert narrow_first.first(V) is narrow_first
    narrow_first.first(3).add(ones[:, :3], 2.0)
    narrow_first.add(ones, torch.full((N, 1), 5.0))
    wide_first.add(ones, 5.0)
    wide_first.first(3).add(ones[:, :3], 2.0)
    wanted = 5 * ones
    wanted[:, :3] += 2
    assert torch.equal(narrow_first.so_far(), wanted)
    assert torch.equal(wide_first.so_far(), wanted)
    assert torch.equal(Slope(torch.full((N, V), torch.nan)).so_far(), torch.zeros(N, V))


@pytest.mark.parametrize("score", CLOSED, ids=name_of)
def test_zero_at_equality(score: Score) -> None:
    teacher = logits(0, 3.0, 5_000, torch.float32)
    value, slope = ours(teacher.clone(), teacher, Term(1.0, REFERENCE, score), 5_000)
    assert value.max() < 2e-6
    assert slope.abs().max() < 2e-7


def test_terms_add_up_and_keep_their_place() -> None:
    student, teacher = logits(0), logits(1)
    terms = [Term(0.5, REFERENCE, score, T) for score in CLOSED[:3] for T in (1.0, 2.0)]
    terms.insert(2, Term(0.0, REFERENCE, forward_kl))
    values, slope = values_and_slope(student, torch.arange(N), terms, teacher)
    one_by_one = [expected(student, teacher, term) for term in terms]
    assert values[2].count_nonzero() == 0
    for index in (0, 1, 3, 4, 5, 6):
        torch.testing.assert_close(values[index], one_by_one[index][0])
    torch.testing.assert_close(slope, sum(x[1] for x in one_by_one))


def test_a_formula_of_a_user_and_a_class_derived_from_ours_are_asked_themselves() -> None:
    @dataclass(frozen=True)
    class Doubled(GeneralizedJSD):
        def __call__(self, teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
            return 2 * super().__call__(teacher_NV, student_NV)

    def total_variation(teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
        return 0.5 * (teacher_NV.exp() - student_NV.exp()).abs().sum(-1)

    def constant(teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
        return teacher_NV.exp().amax(-1)

    student, teacher = logits(0), logits(1, v=V + 2)
    for score in (Doubled(0.3), total_variation):
        assert slope_of(score) is None
        term = Term(1.7, REFERENCE, score, 2.0)
        for found, wanted in zip(
            ours(student, teacher, term, V - 3), expected(student, teacher, term, V - 3), strict=True
        ):
            torch.testing.assert_close(found, wanted)
    value, slope = ours(student, teacher, Term(1.0, REFERENCE, constant))
    assert value.min() > 0
    assert slope.count_nonzero() == 0


def test_blocks_cover_every_position_once() -> None:
    cpu = torch.device("cpu")
    for n, vocabulary in ((0, 10), (1, 10), (7, 10**6), (256, 32_000), (300, 1000)):
        covered = [i for block in blocks(n, vocabulary, cpu) for i in range(n)[block]]
        assert covered == list(range(n))
    assert list(blocks(256, 10**6, torch.device("cuda"))) == [slice(0, 256)]
    assert list(blocks(3, 10**6, cpu)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert math.isclose(len(list(blocks(256, 32_000, cpu))), 64)
