"""Skew reverse KL: its definition, its ends, its bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distil.divergences import reverse_kl
from distil.methods.srkl import SkewReverseKL, SRKLConfig
from distil.types import InputError


def rows(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = 3 * torch.randn(2, 5, 30, generator=generator, dtype=torch.float64)
    return teacher.log_softmax(-1), student.log_softmax(-1)


@pytest.mark.parametrize("skew", [0.05, 0.1, 0.5, 0.9])
def test_equals_its_definition(skew: float) -> None:
    teacher, student = rows(0)
    p, q = teacher.exp(), student.exp()
    mixture = (1 - skew) * p + skew * q
    expected = torch.nn.functional.kl_div(mixture.log(), q, reduction="none").sum(-1)
    torch.testing.assert_close(SkewReverseKL(skew)(teacher, student), expected, rtol=1e-12, atol=1e-14)


def test_is_reverse_kl_where_the_skew_goes_to_0() -> None:
    teacher, student = rows(1)
    torch.testing.assert_close(
        SkewReverseKL(1e-13)(teacher, student), reverse_kl(teacher, student), rtol=1e-6, atol=0
    )


def test_is_bounded_with_a_gradient_where_the_teacher_says_never() -> None:
    """All that the student says is impossible to the teacher: log(1 / s), and not infinity."""
    teacher = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.25, 0.25, 0]]).log()
    student = torch.tensor([[-200.0, -200.0, 0.0, 0.0], [0.0, 0.0, 0.0, -torch.inf]], requires_grad=True)
    values = SkewReverseKL(0.1)(teacher, student.log_softmax(-1))
    assert values[0].item() == pytest.approx(math.log(10), rel=1e-6)
    assert values.isfinite().all()
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert gradient.isfinite().all()
    assert gradient[1].abs().max() > 0.01


@pytest.mark.parametrize("skew", [0, 1, -0.1, 1.5])
def test_a_skew_outside_is_refused(skew: float) -> None:
    with pytest.raises(InputError, match=rf"method.skew must lie in \(0, 1\), got {skew}.*method=revkd"):
        SRKLConfig(skew=skew)
