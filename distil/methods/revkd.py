"""Reverse KD (Gu et al. 2023, arXiv 2306.08543, without its policy gradient):
(1 - alpha) CE + alpha T^2 KL(student || teacher)."""

from __future__ import annotations

from dataclasses import dataclass

from distil.config.schema import MethodConfig
from distil.divergences import reverse_kl
from distil.losses import Term, cross_entropy
from distil.methods.base import Method, register_method
from distil.types import REFERENCE


@dataclass
class RevKDConfig(MethodConfig):
    """Keys of ``method=revkd``."""

    name: str = "revkd"


@register_method("revkd", RevKDConfig)
class RevKD(Method[RevKDConfig]):
    """Mode-seeking: the student says only what the teacher would say."""

    def terms(self, step: int) -> tuple[Term, ...]:
        """Cross-entropy on the reference and reverse KL to the teacher, on the data set's sequences."""
        alpha, T = self.config.kd_loss_weight, self.config.temperature
        return (
            Term(1 - alpha, REFERENCE, cross_entropy),
            Term(alpha * T**2, REFERENCE, reverse_kl, T),
        )
