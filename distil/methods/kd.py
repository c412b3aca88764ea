"""KD (Hinton et al. 2015, arXiv 1503.02531): (1 - alpha) CE + alpha T^2 KL(teacher || student)."""

from __future__ import annotations

from dataclasses import dataclass

from distil.config.schema import MethodConfig
from distil.divergences import forward_kl
from distil.losses import Term, cross_entropy
from distil.methods.base import Method, register_method
from distil.types import REFERENCE


@dataclass
class KDConfig(MethodConfig):
    """Keys of ``method=kd``."""

    name: str = "kd"


@register_method("kd", KDConfig)
class KD(Method[KDConfig]):
    """Mean-seeking: the student covers all that the teacher would say."""

    def terms(self, step: int) -> tuple[Term, ...]:
        """Cross-entropy on the reference and forward KL from the teacher, on the data set's sequences."""
        alpha, T = self.config.kd_loss_weight, self.config.temperature
        return (
            Term(1 - alpha, REFERENCE, cross_entropy),
            Term(alpha * T**2, REFERENCE, forward_kl, T),
        )
