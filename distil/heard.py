"""A teacher as it is heard in judgement: itself, or what it said about the rows before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from distil.forward import Forward
from distil.head import Dense

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Answers: TypeAlias = Callable[[Sequence[int]], Any]
"""What a teacher said about rows by their numbers: a ``Dense`` at their scored positions, one row after the
other."""
Heard: TypeAlias = "PreTrainedModel | Answers"

Listener: TypeAlias = Callable[[Sequence[int], Sequence[Tensor], Dense], Dense]
"""What the teacher says: row numbers, their tensors and what the judged model says in, its signal out."""


def listener(teacher: Heard | None, model: PreTrainedModel) -> Listener | None:
    """How ``teacher`` is heard beside ``model``, which it may be itself; None where there is none."""
    if teacher is None:
        return None
    if teacher is model:
        return lambda _numbers, _inputs, said: said
    if not isinstance(teacher, nn.Module):
        return lambda numbers, _inputs, _said: teacher(numbers)
    forward = Forward(teacher)
    return lambda _numbers, inputs, _said: asked(forward, inputs)


def asked(forward: Forward, inputs: Sequence[Tensor]) -> Dense:
    """What a model says about ``inputs`` (ids, attention mask, scored), wherever they lie."""
    device = next(forward.inner.parameters()).device
    return forward(*(x.to(device) for x in inputs))
