"""The output head's products, forward and backward, a chunk of positions at a time.

Both follow the dtype that weight and autocast give a linear layer; sums over chunks are float32 at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def product_dtype(weight_VH: Tensor) -> torch.dtype:
    """The weight's, or autocast's: it lowers float32, not float64."""
    device = weight_VH.device.type
    if torch.is_autocast_enabled(device) and weight_VH.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight_VH.dtype


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32 at least: float64 stays, all else becomes float32."""
    return torch.promote_types(dtype, torch.float32)


class Product:
    """hidden W^T + b for chunk after chunk, in one place: fresh pages would cost as much as the product."""

    def __init__(self, weight_VH: Tensor | None, bias_V: Tensor | None, rows: int) -> None:
        self.weight_VH = self.bias_V = None
        if weight_VH is not None:
            dtype = product_dtype(weight_VH)
            self.weight_VH = weight_VH.detach().to(dtype)
            self.bias_V = None if bias_V is None else bias_V.detach().to(dtype)
            self.place_NV = weight_VH.new_empty((rows, len(weight_VH)), dtype=dtype)

    def __call__(self, hidden_NH: Tensor) -> Tensor:
        """Good until the next call. Without a weight: what came in."""
        if self.weight_VH is None:
            return hidden_NH
        hidden_NH, out_NV = hidden_NH.to(self.weight_VH.dtype), self.place_NV[: len(hidden_NH)]
        if self.bias_V is None:
            return torch.mm(hidden_NH, self.weight_VH.T, out=out_NV)
        return torch.addmm(self.bias_V, hidden_NH, self.weight_VH.T, out=out_NV)


class Gradients:
    """Gradients of hidden states, weight and bias; what is not wanted is not computed.

    bfloat16 products are differentiated in bfloat16, as autograd does; float16 ones in float32, for small
    slopes would underflow before any loss scale has seen them.
    """

    def __init__(
        self, hidden_NH: Tensor, weight_VH: Tensor | None, bias_V: Tensor | None, wanted: Sequence[bool]
    ) -> None:
        self.inputs = (hidden_NH, weight_VH, bias_V)
        self.sums = tuple(
            torch.zeros_like(x, dtype=wide(x.dtype)) if x is not None and want else None
            for x, want in zip(self.inputs, wanted, strict=True)
        )
        self.weight_VH: Tensor | None = None
        if weight_VH is not None:
            dtype = product_dtype(weight_VH)
            self.weight_VH = weight_VH.detach().to(wide(dtype) if dtype == torch.float16 else dtype)

    def room(self, product_NV: Tensor, rows: slice) -> Tensor | None:
        """Where the slope along a chunk's product goes; None: nobody wants it."""
        if all(x is None for x in self.sums):
            return None
        if self.weight_VH is None:
            return None if self.sums[0] is None else self.sums[0][rows]
        # Over the product itself where the dtype is the same: a block is read before its slope is written.
        same = product_NV.dtype == self.weight_VH.dtype
        return product_NV if same else torch.empty_like(product_NV, dtype=self.weight_VH.dtype)

    def add(self, slope_NV: Tensor, rows: slice) -> None:
        """One chunk's share, given its slope along the product."""
        for_hidden, for_weight, for_bias = self.sums
        if for_bias is not None:
            for_bias += slope_NV.sum(0, dtype=for_bias.dtype)
        if self.weight_VH is None:
            return  # The slope was written where it belongs.
        if for_hidden is not None:
            for_hidden[rows] = slope_NV @ self.weight_VH
        if for_weight is not None:
            hidden_NH = self.inputs[0][rows].to(slope_NV.dtype)
            if for_weight.dtype == slope_NV.dtype:
                for_weight.addmm_(slope_NV.T, hidden_NH)
            else:
                for_weight += slope_NV.T @ hidden_NH

    def scaled(self, loss_gradient: Tensor) -> Iterator[Tensor | None]:
        """Times the loss's own gradient (its count, any loss scale), in the inputs' dtypes."""
        for x, total in zip(self.inputs, self.sums, strict=True):
            yield None if x is None or total is None else (total * loss_gradient).to(x.dtype)
