"""Weights cut up over the processes of a run, and whole again where one process needs them all.

FSDP2 cuts them up, or DeepSpeed's ZeRO-3: two ways to the same, behind one list of functions. What runs a
different number of times in each process (rollouts), or in the first alone (evaluation), takes whole weights:
a layer that is called here and not there would wait for ever.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil.processes import ranks
from distil.types import RunFailed

Asked = TypeVar("Asked")


class Way(Protocol):
    """What a way to cut models up can do; all processes call each of these at once."""

    def starting(self) -> AbstractContextManager[None]:
        """Goes around what starts accelerate: the making of TrainingArguments."""

    def settle(self, accelerator: Accelerator) -> None:
        """Called once ``accelerator`` is there, before it cuts up the model that is trained."""

    def watch(self, model: PreTrainedModel) -> None:
        """Called once the model that is trained is cut up."""

    def shard_frozen(self, model: PreTrainedModel) -> None:
        """Cut up a model that is not trained, in place."""

    def reshard(self, model: nn.Module) -> None:
        """Let go of what a forward without a backward has gathered of ``model``."""

    def own_parts(self, model: nn.Module) -> Iterator[Tensor]:
        """What this process holds of each parameter."""

    def whole(self, parameter: nn.Parameter) -> Tensor:
        """A parameter as it is now."""

    def put(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Give a parameter a whole new value, of which each process takes its part."""

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole state of an optimizer."""

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take back what ``optimizer_state`` gave."""


def way() -> Way:
    """How the processes of this run share out their models."""
    if ranks.zero():
        if not torch.accelerator.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or it warns that it found nothing better
        from distil.processes import zero

        return cast(Way, zero)
    from distil.processes import fsdp2

    return fsdp2


def starting() -> AbstractContextManager[None]:
    """What goes around the making of TrainingArguments, which starts accelerate."""
    return way().starting() if ranks.sharded() else nullcontext()


def finite(model: nn.Module) -> bool:
    """Whether this process's part of the weights, all of them where they are not cut up, are numbers."""
    own = way().own_parts(model) if ranks.sharded() else model.parameters()
    return all(bool(torch.isfinite(p).all()) for p in own if p.is_floating_point())


class Shells:
    """Models without weights of their own, which are lent the whole weights of sharded ones."""

    def __init__(self) -> None:
        self._shells: dict[int, tuple[nn.Module, nn.Module]] = {}

    def keep(self, model: PreTrainedModel) -> None:
        """Make a shell of ``model``, which is about to be cut up."""
        empty = {
            id(p): nn.Parameter(p.detach().new_empty(0), requires_grad=p.requires_grad)
            for p in model.parameters()
        }
        self._shells[id(model)] = model, copy.deepcopy(model, empty)

    def filled(self, asked: Asked) -> Asked:
        """``asked`` with all its weights as they are now, if it was cut up; else itself.

        All processes must ask at once.
        """
        if id(asked) not in self._shells:
            return asked
        model, shell = self._shells[id(asked)]
        way().reshard(model)  # what is gathered may be rounded
        own = dict(model.named_parameters())
        for name, parameter in shell.named_parameters():
            parameter.data = way().whole(own[name]).to(parameter.dtype)
        return cast(Asked, shell)

    def emptied(self) -> None:
        """Take the weights back from all shells."""
        for _, shell in self._shells.values():
            for parameter in shell.parameters():
                parameter.data = parameter.data.new_empty(0)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read a checkpoint with whole weights: each process takes its part. RunFailed where it is of another."""
    own = dict(model.named_parameters())
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stored, torch.no_grad():
            for name in sorted(set(stored.keys()) & set(own)):  # one order in all processes
                way().put(own.pop(name), stored.get_tensor(name))
    if own:
        raise RunFailed(f"{folder}: it holds other parameters than those trained here.")
