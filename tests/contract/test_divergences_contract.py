"""What every divergence keeps, whoever writes it: public functions and classes of the module are found here.

A class is tried with its default settings and, where it has a ``weight``, at several of them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distil import divergences
from distil.losses import Term
from distil.types import REFERENCE

Divergence = Callable[[Tensor, Tensor], Tensor]


def every_divergence() -> dict[str, Divergence]:
    """All that ``distil.divergences`` defines in public, ready to be called."""
    found: dict[str, Divergence] = {}
    for name, thing in vars(divergences).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != divergences.__name__:
            continue
        if inspect.isfunction(thing):
            found[name] = thing
        elif inspect.isclass(thing):
            found[name] = thing()
            if any(field.name == "weight" for field in dataclasses.fields(thing)):
                found |= {f"{name}({w})": thing(weight=w) for w in (0.1, 0.9)}
    return found


DIVERGENCES = every_divergence()
each = pytest.mark.parametrize("divergence", DIVERGENCES.values(), ids=DIVERGENCES.keys())


def logits(seed: int, dtype: torch.dtype = torch.float64, n: int = 6, v: int = 40) -> tuple[Tensor, Tensor]:
    both = 3 * torch.randn(2, n, v, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return both[0].to(dtype), both[1].to(dtype)


def value(divergence: Divergence, teacher: Tensor, student: Tensor) -> Tensor:
    return divergence(teacher.log_softmax(-1), student.log_softmax(-1))


def test_the_built_in_ones_are_found() -> None:
    assert {"forward_kl", "reverse_kl", "GeneralizedJSD"} <= DIVERGENCES.keys()


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_number_a_position_in_the_same_dtype(divergence: Divergence, dtype: torch.dtype) -> None:
    teacher, student = logits(0, dtype)
    result = value(divergence, teacher, student)
    assert result.shape == (len(teacher),)
    assert result.dtype == dtype
    assert value(divergence, teacher[:0], student[:0]).shape == (0,)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_at_equality_with_its_gradient(divergence: Divergence, dtype: torch.dtype) -> None:
    teacher, _ = logits(1, dtype)
    student = teacher.clone().requires_grad_()
    result = value(divergence, teacher, student)
    (gradient,) = torch.autograd.grad(result.sum(), student)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    assert (result.abs() <= tolerance).all()
    assert (gradient.abs() <= tolerance).all()


@each
@pytest.mark.parametrize("seed", range(5))
def test_never_negative(divergence: Divergence, seed: int) -> None:
    for scale in (1, 1e-2, 1e-4, 0):
        teacher, other = logits(seed, torch.float32)
        result = value(divergence, teacher, teacher + scale * other)
        assert (result >= 0).all()
    assert (value(divergence, *logits(seed)) > 0).all()


@each
def test_gradient_is_the_slope(divergence: Divergence) -> None:
    teacher, student = logits(2, n=3, v=7)
    assert torch.autograd.gradcheck(lambda s: value(divergence, teacher, s), student.requires_grad_())


@each
def test_rows_do_not_mix(divergence: Divergence) -> None:
    """NaN in one position stays there, in the value and in the gradient."""
    teacher, student = logits(3)
    student[2] = torch.nan
    student.requires_grad_()
    result = value(divergence, teacher, student)
    clean = torch.arange(len(teacher)) != 2
    (gradient,) = torch.autograd.grad(result[clean].sum(), student)
    assert result[clean].isfinite().all()
    assert gradient[clean].isfinite().all()


@each
def test_order_of_outcomes_does_not_matter(divergence: Divergence) -> None:
    teacher, student = logits(4)
    order = torch.randperm(teacher.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        value(divergence, teacher[:, order], student[:, order]), value(divergence, teacher, student)
    )


@each
def test_shared_impossible_outcomes_change_nothing(divergence: Divergence) -> None:
    teacher, student = logits(5)
    padding = torch.full((len(teacher), 3), -torch.inf, dtype=teacher.dtype)
    padded = torch.cat([student, padding], -1).requires_grad_()
    result = value(divergence, torch.cat([teacher, padding], -1), padded)
    torch.testing.assert_close(result, value(divergence, teacher, student))
    (gradient,) = torch.autograd.grad(result.sum(), padded)
    assert gradient.isfinite().all()


@each
def test_a_term_can_name_it(divergence: Divergence) -> None:
    term = Term(1.0, REFERENCE, divergence)
    assert term.needs_teacher
    assert term.name.isidentifier()
