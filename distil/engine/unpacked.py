"""4-bit weights unpacked once for all tokens of a generation, where memory is a CPU's.

bitsandbytes has no kernel on a CPU that multiplies packed weights one token at a time: all are unpacked for
each token. Unpacked once, the same numbers come out to the bit, and a generation takes half the time; until
its end the weights take the room they would have in floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

MOST_BYTES = 2 * 2**30
"""Larger models stay packed: their memory is why they are."""


@contextmanager
def unpacked(model: nn.Module) -> Iterator[None]:
    """Inside, 4-bit linear modules on the CPU multiply unpacked weights; no gradient is to flow."""
    packed: list[Any] = [m for m in model.modules() if _is_packed_on_cpu(m)]
    if sum(4 * m.in_features * m.out_features for m in packed) > MOST_BYTES:
        packed = []
    earlier = [module.__dict__.get("forward") for module in packed]  # hooks of accelerate stand there
    try:
        for module in packed:
            module.forward = _product(module)
        yield
    finally:
        for module, forward in zip(packed, earlier, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _is_packed_on_cpu(module: Any) -> bool:
    return (
        hasattr(module, "compute_dtype")
        and getattr(getattr(module, "weight", None), "quant_state", None) is not None
        and module.weight.device.type == "cpu"
    )


def _product(module: Any) -> Any:
    from bitsandbytes.functional import dequantize_4bit

    dtype = module.compute_dtype or module.weight.quant_state.dtype
    weight_OI = dequantize_4bit(module.weight.data, module.weight.quant_state).to(dtype)
    bias_O = None if module.bias is None else module.bias.data.to(dtype)

    def forward(x: Tensor) -> Tensor:
        return nn.functional.linear(x.to(dtype), weight_OI, bias_O).to(x.dtype)

    return forward
