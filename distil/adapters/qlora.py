"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): LoRA beside a base that is held in 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distil.adapters.base import register_adapter
from distil.adapters.lora import LoraConfig, LoraFamily
from distil.config.schema import check, check_choice

FOUR_BIT = ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype")


@dataclass
class QloraConfig(LoraConfig):
    """Keys of ``peft=qlora``: those of ``lora``, and those of ``transformers.BitsAndBytesConfig``."""

    name: str = "qlora"
    bits: int = 4
    """4 or 8."""
    bnb_4bit_quant_type: str = "nf4"
    """``nf4`` or ``fp4``."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the scales of the blocks too."""
    bnb_4bit_compute_dtype: str = "auto"
    """What weights become for a product: ``float32``, ``bfloat16``, ``float16``; ``auto``: as the student."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.bits in (4, 8), f"peft.bits must be 4 or 8, got {self.bits}.")
        check_choice("peft.bnb_4bit_quant_type", self.bnb_4bit_quant_type, ("nf4", "fp4"))
        dtypes = ("auto", "float32", "bfloat16", "float16")
        check_choice("peft.bnb_4bit_compute_dtype", self.bnb_4bit_compute_dtype, dtypes)
        given = [key for key in FOUR_BIT if getattr(self, key) != getattr(QloraConfig, key)]
        check(
            self.bits == 4 or not given,
            f"peft.{given[0] if given else ''} says how 4-bit weights are held, and peft.bits=8. Leave it "
            "out, or take peft.bits=4.",
        )
        init = self.init_lora_weights
        check(
            not isinstance(init, str) or init == "gaussian",
            f"peft.init_lora_weights={init} factors the weights of the base, which peft=qlora holds in "
            f"{self.bits} bits. Take true or gaussian, or peft=lora.",
        )


@register_adapter("qlora", QloraConfig)
class Qlora(LoraFamily[QloraConfig]):
    """LoRA on a quantised base."""

    packages = ("peft", "bitsandbytes")
    own_keys = ("bits", *FOUR_BIT)

    @property
    def quantization(self) -> Mapping[str, Any]:
        """How bitsandbytes is to hold the base."""
        if self.config.bits == 8:
            return {"load_in_8bit": True}
        return {"load_in_4bit": True, **{key: getattr(self.config, key) for key in FOUR_BIT}}
