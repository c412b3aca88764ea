"""Divergences between two rows of log-probabilities over the same outcomes, in nats, one number a position.

The outcomes may be a vocabulary or anything coarser (K ids and "the rest"): the formulas do not care. Rows
must be normalised; ``-inf`` is a fine log-probability, as 0 log 0 = 0. Values keep the arguments' dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


def forward_kl(teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
    """KL(teacher || student): infinite where the student rules out what the teacher may say."""
    return _not_negative(_kl(teacher_NV, student_NV))


def reverse_kl(teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
    """KL(student || teacher): infinite where the student may say what the teacher rules out."""
    return _not_negative(_kl(student_NV, teacher_NV))


@dataclass(frozen=True)
class GeneralizedJSD:
    """w KL(teacher || M) + (1 - w) KL(student || M), with M = w teacher + (1 - w) student and w = ``weight``.

    At most the entropy of (w, 1 - w), so always finite. At w = 0 and w = 1 it is exactly 0, as the formula
    says (TRL puts a KL there instead); near them JSD / w -> KL(teacher || student) and
    JSD / (1 - w) -> KL(student || teacher). Between the ends ``weight`` is TRL's ``beta``.
    """

    weight: float = 0.5

    __name__: ClassVar[str] = "jsd"

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], got {self.weight}.")

    def __call__(self, teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
        """The divergence of each position."""
        import torch

        w = self.weight
        if w in (0, 1):
            # Zero with a live graph, also beside -inf (0 * inf is NaN).
            return student_NV.masked_fill(torch.ones_like(student_NV, dtype=torch.bool), 0).sum(-1)
        # The gradient of logaddexp(-inf, -inf) is NaN; for one of them a finite floor says "never" as well.
        teacher_NV = teacher_NV.clamp(min=torch.finfo(teacher_NV.dtype).min / 2)
        mixture_NV = torch.logaddexp(teacher_NV + math.log(w), student_NV + math.log1p(-w))
        return _not_negative(w * _kl(teacher_NV, mixture_NV) + (1 - w) * _kl(student_NV, mixture_NV))


def _kl(from_NV: Tensor, to_NV: Tensor) -> Tensor:
    """KL(from || to). Outcomes of probability 0 under ``from`` add nothing, whatever ``to`` says."""
    probability_NV = from_NV.exp()
    gap_NV = (from_NV - to_NV).masked_fill(probability_NV == 0, 0)
    return (probability_NV * gap_NV).sum(-1)


def _not_negative(value_N: Tensor) -> Tensor:
    """Take off what rounding left below 0 (some 1e-7 where rows are equal); the gradient stays as it is."""
    return value_N - value_N.detach().clamp(max=0)
