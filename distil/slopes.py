"""The built-in divergences with their slope in closed form, for the fused head.

A formula is all that a divergence needs (``divergences.py``): autograd does the rest. These are the same
functions with the gradient written down, which saves several passes over the vocabulary; tests hold them to
the formulas. They are for finite logits: beside ``-inf`` the formula is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl

if TYPE_CHECKING:
    from distil.losses import Score

LN2 = math.log(2)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of probabilities, not divided yet: that saves a pass over the vocabulary.

    Logarithms are in bits, for a power of 2 is three times as fast as one of e; (N, 1) numbers are turned to
    nats.
    """

    bits_NV: Tensor
    """Log-probabilities to base 2."""
    power_NV: Tensor
    """Probabilities x total."""
    total_N1: Tensor

    @classmethod
    def of(cls, logits_NV: Tensor, temperature: float, peak_N1: Tensor) -> Rows:
        """From logits and the largest of each row."""
        factor = 1 / (LN2 * temperature)
        bits_NV = torch.add(peak_N1 * -factor, logits_NV, alpha=factor)
        power_NV = bits_NV.exp2()
        total_N1 = power_NV.sum(-1, keepdim=True)
        # Here and not in the sums: the gap of two rows that are close stays exact.
        return cls(bits_NV.sub_(total_N1.log2()), power_NV, total_N1)

    def log_probabilities(self) -> Tensor:
        """What a formula takes, (N, V), in nats."""
        return self.bits_NV * LN2

    def weigh(self, x_NV: Tensor) -> Tensor:
        """Mean of ``x`` under the probabilities, (N, 1); ``x`` becomes x * power."""
        return x_NV.mul_(self.power_NV).sum(-1, keepdim=True) / self.total_N1


class Slope(Protocol):
    """A score of each position, (N,), that adds its slope to a tensor on the way."""

    def __call__(self, teacher: Rows, student: Rows, weight: float, slope_NV: Tensor) -> Tensor:
        """Add ``weight`` x the slope along the student's softened logits to ``slope_NV``, in place."""


def slope_of(divergence: Score) -> Slope | None:
    """The closed form that goes with a formula, if there is one."""
    # A class derived from ours has a formula of its own.
    if type(divergence) is GeneralizedJSD:
        return partial(_jsd, divergence.weight)
    for formula, slope in ((forward_kl, _forward_kl), (reverse_kl, _reverse_kl)):
        if divergence is formula:
            return slope
    return None


def cross_entropy(targets_N: Tensor, student: Rows, weight: float, slope_NV: Tensor) -> Tensor:
    """-log p(target); slope: the student, less 1 at the target."""
    targets_N1 = targets_N[:, None]
    slope_NV.addcmul_(student.power_NV, weight / student.total_N1)
    slope_NV.scatter_add_(-1, targets_N1, torch.full_like(student.total_N1, -weight))
    return -LN2 * student.bits_NV.gather(-1, targets_N1).squeeze(-1)


def _forward_kl(teacher: Rows, student: Rows, weight: float, slope_NV: Tensor) -> Tensor:
    """Slope: student - teacher."""
    slope_NV.addcmul_(student.power_NV, weight / student.total_N1)
    slope_NV.addcmul_(teacher.power_NV, -weight / teacher.total_N1)
    value_N1 = LN2 * teacher.weigh(teacher.bits_NV - student.bits_NV)
    return value_N1.squeeze(-1).clamp_(min=0)


def _reverse_kl(teacher: Rows, student: Rows, weight: float, slope_NV: Tensor) -> Tensor:
    """Slope: student x (log(student / teacher) - its mean under the student)."""
    gap_NV = student.bits_NV - teacher.bits_NV
    value_N1 = LN2 * student.weigh(gap_NV)
    _add_centred(gap_NV, value_N1, student, weight, slope_NV)
    return value_N1.squeeze(-1).clamp(min=0)


def _jsd(w: float, teacher: Rows, student: Rows, weight: float, slope_NV: Tensor) -> Tensor:
    """Slope: (1 - w) x student x (log(student / M) - its mean under the student), M the mixture."""
    if w in (0, 1):
        return torch.zeros_like(student.total_N1[:, 0])
    mixture_NV = student.power_NV * ((1 - w) / student.total_N1)
    mixture_NV.addcmul_(teacher.power_NV, w / teacher.total_N1)
    # Where both underflow, any finite logarithm does: 0 x that is 0.
    mixture_NV.clamp_(min=torch.finfo(mixture_NV.dtype).tiny).log2_()
    gap_NV = student.bits_NV - mixture_NV
    of_student_N1 = LN2 * student.weigh(gap_NV)
    _add_centred(gap_NV, of_student_N1, student, weight * (1 - w), slope_NV)
    of_teacher_N1 = LN2 * teacher.weigh(torch.sub(teacher.bits_NV, mixture_NV, out=mixture_NV))
    value_N1 = w * of_teacher_N1 + (1 - w) * of_student_N1
    return value_N1.squeeze(-1).clamp_(min=0)


def _add_centred(weighed_NV: Tensor, mean_N1: Tensor, student: Rows, weight: float, slope_NV: Tensor) -> None:
    """Add weight x student x (gap - its mean), where ``weighed`` is power x the gap in bits."""
    scale_N1 = weight / student.total_N1
    slope_NV.addcmul_(weighed_NV, LN2 * scale_N1).addcmul_(student.power_NV, -mean_N1 * scale_N1)
