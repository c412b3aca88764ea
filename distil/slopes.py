"""The built-in divergences with their slope in closed form, for the fused head.

A formula is all that a divergence needs (``divergences.py``): autograd does the rest. These are the same
functions with the gradient written down, which saves several passes over the vocabulary; tests hold them to
the formulas. They are for finite logits: beside ``-inf`` the formula is asked.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl

if TYPE_CHECKING:
    from distil.losses import Score

LN2 = math.log(2)


class Scratch:
    """Tensors that the blocks of one call use again: fresh pages would cost as much as the arithmetic."""

    def __init__(self) -> None:
        self._all: dict[tuple[int, torch.dtype], list[Tensor]] = {}
        self._taken: Counter[tuple[int, torch.dtype]] = Counter()

    def like(self, x_NV: Tensor) -> Tensor:
        """An uninitialised tensor of this shape and dtype, the caller's until ``clear``."""
        key = x_NV.shape[-1], x_NV.dtype
        kept, at = self._all.setdefault(key, []), self._taken[key]
        if at == len(kept):
            kept.append(torch.empty_like(x_NV))
        elif len(kept[at]) < len(x_NV):
            kept[at] = torch.empty_like(x_NV)
        self._taken[key] += 1
        return kept[at][: len(x_NV)]

    def clear(self) -> None:
        """All may be handed out again."""
        self._taken.clear()


class Slope:
    """A sum along the logits of a block, in a place that is not set to 0 before the first addend needs it."""

    def __init__(self, place_NV: Tensor, started: bool = False) -> None:
        self._place_NV = place_NV
        self._started = started

    def add(self, x_NV: Tensor, scale: Tensor | float) -> None:
        """Add ``scale`` (a number, or one a row) x ``x``."""
        if not self._started:
            torch.mul(x_NV, scale, out=self._place_NV)
        elif isinstance(scale, Tensor):
            self._place_NV.addcmul_(x_NV, scale)
        else:
            self._place_NV.add_(x_NV, alpha=scale)
        self._started = True

    def first(self, width: int) -> Slope:
        """The same sum over the first ``width`` ids."""
        return self if width == self._place_NV.shape[-1] else Slope(self.so_far()[:, :width], started=True)

    def so_far(self) -> Tensor:
        """The sum, to read and to write."""
        if not self._started:
            self._place_NV.zero_()
        self._started = True
        return self._place_NV


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of probabilities, not divided yet: that saves passes over the vocabulary.

    Logarithms are in bits, for a power of 2 is three times as fast as one of e; (N, 1) numbers are turned to
    nats.
    """

    bits_NV: Tensor
    """Logits to base 2, softened, less the largest of the row."""
    power_NV: Tensor
    """2 ** bits: probabilities x total."""
    total_N1: Tensor
    scratch: Scratch

    @classmethod
    def of(cls, logits_NV: Tensor, temperature: float, peak_N1: Tensor, scratch: Scratch) -> Rows:
        """From logits and the largest of each row."""
        factor = 1 / (LN2 * temperature)
        bits_NV = torch.add(peak_N1 * -factor, logits_NV, alpha=factor, out=scratch.like(logits_NV))
        power_NV = torch.exp2(bits_NV, out=scratch.like(logits_NV))
        return cls(bits_NV, power_NV, power_NV.sum(-1, keepdim=True), scratch)

    def log_probabilities(self) -> Tensor:
        """What a formula takes, (N, V), in nats."""
        return (self.bits_NV - self.total_N1.log2()) * LN2

    def gap(self, other_NV: Tensor) -> Tensor:
        """bits - ``other``."""
        return torch.sub(self.bits_NV, other_NV, out=self.scratch.like(other_NV))

    def weigh(self, x_NV: Tensor) -> Tensor:
        """Mean of ``x`` under the probabilities, (N, 1); ``x`` becomes x * power."""
        return x_NV.mul_(self.power_NV).sum(-1, keepdim=True) / self.total_N1


class ClosedForm(Protocol):
    """A score of each position, (N,), that adds its slope to a sum on the way."""

    def __call__(self, teacher: Rows, student: Rows, weight: float, slope: Slope) -> Tensor:
        """Add ``weight`` x the slope along the student's softened logits to ``slope``."""


def slope_of(divergence: Score) -> ClosedForm | None:
    """The closed form that goes with a formula, if there is one."""
    # A class derived from ours has a formula of its own.
    if type(divergence) is GeneralizedJSD:
        return partial(_jsd, divergence.weight)
    for formula, slope in ((forward_kl, _forward_kl), (reverse_kl, _reverse_kl)):
        if divergence is formula:
            return slope
    return None


def cross_entropy(targets_N: Tensor, student: Rows, weight: float, slope: Slope) -> Tensor:
    """-log p(target); slope: the student, less 1 at the target."""
    targets_N1 = targets_N[:, None]
    slope.add(student.power_NV, weight / student.total_N1)
    slope.so_far().scatter_add_(-1, targets_N1, torch.full_like(student.total_N1, -weight))
    return LN2 * (student.total_N1.log2() - student.bits_NV.gather(-1, targets_N1)).squeeze(-1)


def _forward_kl(teacher: Rows, student: Rows, weight: float, slope: Slope) -> Tensor:
    """Slope: student - teacher."""
    slope.add(student.power_NV, weight / student.total_N1)
    slope.add(teacher.power_NV, -weight / teacher.total_N1)
    mean_N1 = teacher.weigh(teacher.gap(student.bits_NV)) + (student.total_N1 / teacher.total_N1).log2()
    return (LN2 * mean_N1).squeeze(-1).clamp_(min=0)


def _reverse_kl(teacher: Rows, student: Rows, weight: float, slope: Slope) -> Tensor:
    """Slope: student x (log(student / teacher) - its mean under the student)."""
    gap_NV = student.gap(teacher.bits_NV)
    mean_N1 = student.weigh(gap_NV)
    _add_centred(gap_NV, mean_N1, student, weight, slope)
    return (LN2 * (mean_N1 + (teacher.total_N1 / student.total_N1).log2())).squeeze(-1).clamp_(min=0)


def _jsd(w: float, teacher: Rows, student: Rows, weight: float, slope: Slope) -> Tensor:
    """Slope: (1 - w) x student x (log(student / M) - its mean under the student), M the mixture."""
    if w in (0, 1):
        return torch.zeros_like(student.total_N1[:, 0])
    # M x the student's total, so that it stands beside the student's bits as they are.
    mixture_NV = torch.mul(student.power_NV, 1 - w, out=student.scratch.like(student.power_NV))
    mixture_NV.addcmul_(teacher.power_NV, w * student.total_N1 / teacher.total_N1)
    # Where both underflow, any finite logarithm does: 0 x that is 0.
    mixture_NV.clamp_(min=torch.finfo(mixture_NV.dtype).tiny).log2_()
    gap_NV = student.gap(mixture_NV)
    of_student_N1 = student.weigh(gap_NV)
    _add_centred(gap_NV, of_student_N1, student, weight * (1 - w), slope)
    teacher_gap_NV = torch.sub(teacher.bits_NV, mixture_NV, out=mixture_NV)
    of_teacher_N1 = teacher.weigh(teacher_gap_NV) + (student.total_N1 / teacher.total_N1).log2()
    return (LN2 * (w * of_teacher_N1 + (1 - w) * of_student_N1)).squeeze(-1).clamp_(min=0)


def _add_centred(weighed_NV: Tensor, mean_N1: Tensor, student: Rows, weight: float, slope: Slope) -> None:
    """Add weight x student x (gap - its mean): ``weighed`` is power x gap; both are in bits."""
    scale_N1 = LN2 * weight / student.total_N1
    slope.add(weighed_NV, scale_N1)
    slope.add(student.power_NV, -mean_N1 * scale_N1)
