"""Weights cut up over the processes of a run (FSDP2), and whole again where one process needs them all.

accelerate cuts the student, by the settings that ``accelerate launch`` puts into the environment. The
teacher is cut here: it is never stepped, and may be of another architecture. What runs a different number of
times in each process (rollouts), or in the first alone (judgement), takes whole weights: a layer that is
called here and not there would wait for ever.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from distil.types import RunFailed

Asked = TypeVar("Asked")


def allow_on_cpu(accelerator: Accelerator) -> None:
    """Have ``accelerator`` cut its model up on a CPU as elsewhere: torch can, it does not ask."""
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # reads the environment
    accelerator.state.distributed_type = DistributedType.FSDP


def shard_frozen(model: PreTrainedModel) -> None:
    """Cut up a model that is not trained, layer by layer, in place."""
    layers = set(model._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(model)


def reshard(model: nn.Module) -> None:
    """Let go of what a forward without a backward has gathered of ``model``; all processes at once."""
    for part in _parts(model):
        part.reshard()


def finite(model: nn.Module) -> bool:
    """Whether this process's part of the weights, all of them where they are not cut up, are numbers."""
    own = (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())
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
        reshard(model)  # what is gathered may be rounded
        own = dict(model.named_parameters())
        for name, parameter in shell.named_parameters():
            whole = own[name].detach()
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            parameter.data = whole.to(parameter.dtype)
        return cast(Asked, shell)

    def emptied(self) -> None:
        """Take the weights back from all shells."""
        for _, shell in self._shells.values():
            for parameter in shell.parameters():
                parameter.data = parameter.data.new_empty(0)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read a checkpoint with whole weights: each process takes its part. RunFailed where it is of another."""
    own = dict(model.named_parameters())
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as stored, torch.no_grad():
            for name in set(stored.keys()) & set(own):
                parameter = own.pop(name)
                parameter.copy_(_cut(stored.get_tensor(name), parameter))
    if own:
        raise RunFailed(f"{folder}: it holds other parameters than those trained here.")


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The whole state, in the form that one process gives it; all processes at once."""
    state = dict(optimizer.state_dict())
    state["state"] = {
        place: {k: v.full_tensor().cpu() if isinstance(v, DTensor) else v for k, v in values.items()}
        for place, values in state["state"].items()
    }
    return state


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take back what ``optimizer_state`` gave: each process its part."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {
        place: {k: _cut(v, parameters[place]) if torch.is_tensor(v) else v for k, v in values.items()}
        for place, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": parts})


def _cut(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that lies along a parameter; what does not (a count) stays whole."""
    if not isinstance(like, DTensor) or whole.shape != like.shape:
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _parts(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))
