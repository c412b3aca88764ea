"""Models whose weights are held in 4 or 8 bits by bitsandbytes, on a CPU too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from distil.types import InputError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel

TEACHER_KINDS: Mapping[str, Mapping[str, Any]] = {
    "nf4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "auto",
    },
    "int8": {"load_in_8bit": True},
}
"""``model.teacher.quantization`` in the keys of ``BitsAndBytesConfig``."""

BLOCK = 64
"""Weights that share one scale in 4 bits."""


def bits_and_bytes(keys: Mapping[str, Any], dtype: str) -> BitsAndBytesConfig:
    """``BitsAndBytesConfig(**keys)``; a compute dtype ``auto`` is ``dtype``, that of the model."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**resolved(keys, dtype))  # type: ignore[no-untyped-call]  # theirs has no types


def resolved(keys: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """``keys`` with the compute dtype ``auto`` resolved."""
    given = dict(keys)
    if given.get("bnb_4bit_compute_dtype") == "auto":
        given["bnb_4bit_compute_dtype"] = "float32" if dtype == "auto" else dtype
    return given


def is_packed(model: PreTrainedModel) -> bool:
    """Whether bitsandbytes holds weights of ``model``: quantised while loading, or saved so."""
    method = getattr(model, "quantization_method", None)
    return getattr(method, "value", method) == "bitsandbytes"


def settle(model: PreTrainedModel, label: str, way_out: str) -> None:
    """Make a freshly loaded quantised model safe to train beside and to generate with.

    On a CPU with AVX512_BF16, bitsandbytes repacks 4-bit weights in place at the first forward in eval mode
    and never back: all gradients after that are wrong, without a word. That road is closed here. So is that
    of 8-bit weights on a CPU in eval mode, which rounds the activations too, and not alike in every batch: a
    model would be evaluated, and would generate, as another than the one that is trained.

    Raises InputError naming ``label`` and ``way_out`` for widths that are no multiple of a block.
    """
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    ragged = []
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            if module.in_features % BLOCK:
                ragged.append(f"{name} ({module.in_features})")
        elif isinstance(module, Linear8bitLt):
            state: Any = module.state
            state.__class__ = _always_as_in_training()
    if ragged:
        raise InputError(
            f"{label}: 4 bits are kept in blocks of {BLOCK} weights, and {BLOCK} divides the input width of "
            f"all but these modules: {', '.join(ragged[:4])}{' …' if len(ragged) > 4 else ''}. {way_out}"
        )


@cache
def _always_as_in_training() -> type[Any]:
    """The state of an 8-bit module that takes no notice of eval mode; on a GPU both modes are one anyway."""
    from bitsandbytes.autograd._functions import MatmulLtState

    class AsInTraining(MatmulLtState):
        @property
        def is_training(self) -> bool:
            return True

        @is_training.setter
        def is_training(self, value: bool) -> None:
            """Set by each forward."""

    return AsInTraining
