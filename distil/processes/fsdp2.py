"""Weights cut up by FSDP2.

accelerate cuts the student, by the settings that ``accelerate launch`` puts into the environment. The
teacher is cut here: it is never stepped, and may be of another architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def starting() -> AbstractContextManager[None]:
    """Nothing is to be done around the start of accelerate."""
    return nullcontext()


def settle(accelerator: Accelerator) -> None:
    """Have ``accelerator`` cut its model up on a CPU as elsewhere: torch can, it does not ask."""
    if accelerator.distributed_type != DistributedType.FSDP:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # reads the environment
        accelerator.state.distributed_type = DistributedType.FSDP


def watch(model: PreTrainedModel) -> None:
    """Nothing is to be done: the head is whole from a forward to the backward."""


def shard_frozen(model: PreTrainedModel) -> None:
    """Cut up a model that is not trained, layer by layer, in place."""
    layers = set(model._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(model)


def reshard(model: nn.Module) -> None:
    """Let go of what a forward without a backward has gathered of ``model``; all processes at once."""
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def own_parts(model: nn.Module) -> Iterator[Tensor]:
    """What this process holds of each parameter."""
    return (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())


def whole(parameter: nn.Parameter) -> Tensor:
    """A parameter as it is now; all processes at once."""
    own = parameter.detach()
    return own.full_tensor() if isinstance(own, DTensor) else own


def put(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter a whole new value, of which each process takes its part."""
    parameter.copy_(_cut(value, parameter))


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
