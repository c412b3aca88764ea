"""SFT: cross-entropy on the data set's responses. No teacher: the row every comparison needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distil.config.schema import MethodConfig
from distil.losses import Term, cross_entropy
from distil.methods.base import Method, register_method
from distil.types import REFERENCE


@dataclass
class SFTConfig(MethodConfig):
    """Keys of ``method=sft``."""

    name: str = "sft"

    ignored: ClassVar[tuple[str, ...]] = ("temperature", "kd_loss_weight")


@register_method("sft", SFTConfig)
class SFT(Method[SFTConfig]):
    """Supervised fine-tuning."""

    def terms(self, step: int) -> tuple[Term, ...]:
        """Cross-entropy alone."""
        return (Term(1.0, REFERENCE, cross_entropy),)
