"""No adapter: all of the student is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distil.adapters.base import Adapter, register_adapter
from distil.config.schema import PeftConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class NoneConfig(PeftConfig):
    """Keys of ``peft=none``."""

    name: str = "none"


@register_adapter("none", NoneConfig)
class NoAdapter(Adapter[NoneConfig]):
    """Full fine-tuning."""

    adapts = False
    packages = ()
    usual_rates = (1e-7, 2e-2)

    def wrap(
        self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """The student itself."""
        return student

    @property
    def keeps_base(self) -> bool:
        """No: training changes it."""
        return False
