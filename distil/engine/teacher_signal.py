"""What a teacher says about rows that are scored: the model itself, or what it said about them before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from distil.engine.forward import Forward
from distil.head import Dense

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CachedSignal: TypeAlias = Callable[[Sequence[int]], Any]
"""What a teacher said about rows by their numbers: a ``Dense`` at their scored positions, one row after the
other."""
TeacherSource: TypeAlias = "PreTrainedModel | CachedSignal"

SignalOf: TypeAlias = Callable[[Sequence[int], Sequence[Tensor], Dense], Dense]
"""Gives the teacher's signal for row numbers, their tensors and the signal of the model that is scored."""


def signal_of(teacher: TeacherSource | None, model: PreTrainedModel) -> SignalOf | None:
    """How ``teacher`` is asked beside ``model``, which it may be itself; None where there is none."""
    if teacher is None:
        return None
    if teacher is model:
        return lambda _numbers, _inputs, own: own
    if not isinstance(teacher, nn.Module):
        return lambda numbers, _inputs, _own: teacher(numbers)
    forward = Forward(teacher)
    return lambda _numbers, inputs, _own: forward_on_device(forward, inputs)


def forward_on_device(forward: Forward, inputs: Sequence[Tensor]) -> Dense:
    """What a model says about ``inputs`` (ids, attention mask, scored), wherever they lie."""
    device = next(forward.inner.parameters()).device
    if device.type == "meta":  # all of it is offloaded: accelerate brings the inputs where they are needed
        return forward(*inputs)
    return forward(*(x.to(device) for x in inputs))
