"""DoRA (Liu et al. 2024, arXiv 2402.09353): LoRA for the direction of each weight, a trained length beside
it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distil.adapters.base import register_adapter
from distil.adapters.lora import LoraConfig, LoraFamily


@dataclass
class DoraConfig(LoraConfig):
    """Keys of ``peft=dora``: those of ``lora``."""

    name: str = "dora"


@register_adapter("dora", DoraConfig)
class Dora(LoraFamily[DoraConfig]):
    """Weight-decomposed low-rank adaptation; slower a step than LoRA."""

    def peft_keys(self) -> dict[str, Any]:
        """``use_dora``."""
        return {"use_dora": True}
