"""Skew reverse KL (DistiLLM, Ko et al. 2024, arXiv 2402.03898, section 3.1):
(1 - alpha) CE + alpha T^2 KL(student || (1 - s) teacher + s student), with s the skew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from distil.config.schema import MethodConfig, check
from distil.divergences import forward_kl
from distil.losses import Term, cross_entropy
from distil.methods.base import Method, register_method
from distil.types import REFERENCE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SkewReverseKL:
    """KL(student || M), M = (1 - s) teacher + s student, 0 < s < 1: at most log(1 / s), so always finite."""

    skew: float = 0.1

    __name__: ClassVar[str] = "skew_reverse_kl"

    def __call__(self, teacher_NV: Tensor, student_NV: Tensor) -> Tensor:
        """The divergence of each position."""
        import torch

        # The gradient of logaddexp(-inf, -inf) is NaN; for one of them a finite floor says "never" as well.
        teacher_NV = teacher_NV.clamp(min=torch.finfo(teacher_NV.dtype).min / 2)
        mixture_NV = torch.logaddexp(teacher_NV + math.log1p(-self.skew), student_NV + math.log(self.skew))
        return forward_kl(student_NV, mixture_NV)  # KL(first || second)


@dataclass
class SRKLConfig(MethodConfig):
    """Keys of ``method=srkl``."""

    name: str = "srkl"
    skew: float = 0.1
    """The student's part of the mixture; the nearer to 0, the more it is reverse KL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            0 < self.skew < 1,
            f"method.skew must lie in (0, 1), got {self.skew}. For plain reverse KL use method=revkd.",
        )


@register_method("srkl", SRKLConfig)
class SRKL(Method[SRKLConfig]):
    """Mode-seeking as reverse KL is, with a gradient that cannot run away where the teacher says never."""

    def terms(self, step: int) -> tuple[Term, ...]:
        """Cross-entropy on the reference and skew reverse KL to the teacher, on the data set's sequences."""
        c = self.config
        divergence = SkewReverseKL(c.skew)
        return (
            Term(1 - c.kd_loss_weight, REFERENCE, cross_entropy),
            Term(c.kd_loss_weight * c.temperature**2, REFERENCE, divergence, c.temperature),
        )
