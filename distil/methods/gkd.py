"""GKD (Agarwal et al. 2023, arXiv 2306.13649): lambda JSD on the data set + (1 - lambda) JSD on the student's
own.

lambda is the share of the data set's sequences: 1 is all off-policy, 0 all on-policy. The paper and TRL count
theirs the other way round. Both parts are in every step; no coin is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distil.config.schema import MethodConfig, check
from distil.divergences import GeneralizedJSD
from distil.losses import Term
from distil.methods.base import Method, register_method
from distil.types import REFERENCE, ROLLOUT


@dataclass
class GKDConfig(MethodConfig):
    """Keys of ``method=gkd``."""

    name: str = "gkd"
    temperature: float = 1.0
    lambda_gkd: float = 0.5
    """Weight of the data set's sequences; 1 - lambda_gkd is that of the student's own."""
    mixture_weight: float = 0.5
    """Weight of the teacher in the mixture M of the Jensen-Shannon divergence."""

    ignored: ClassVar[tuple[str, ...]] = ("kd_loss_weight",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.lambda_gkd <= 1, f"method.lambda_gkd must lie in [0, 1], got {self.lambda_gkd}.")
        check(
            0 < self.mixture_weight < 1,
            f"method.mixture_weight must lie in (0, 1), got {self.mixture_weight}: at the ends the "
            "divergence vanishes. For KL(teacher || student) use method=kd, for KL(student || teacher) "
            "method=revkd.",
        )


@register_method("gkd", GKDConfig)
class GKD(Method[GKDConfig]):
    """On-policy distillation: the student also learns from what it would say itself."""

    def terms(self, step: int) -> tuple[Term, ...]:
        """The same divergence on two kinds of sequences."""
        c = self.config
        divergence = GeneralizedJSD(c.mixture_weight)
        return (
            Term(c.lambda_gkd, REFERENCE, divergence, c.temperature),
            Term(1 - c.lambda_gkd, ROLLOUT, divergence, c.temperature),
        )
