"""Weights cut up by DeepSpeed's ZeRO-3. Imports DeepSpeed: for runs that ask for it alone.

accelerate makes the student's engine, by the settings that ``accelerate launch`` puts into the environment;
the teacher gets one without an optimizer here. Both cut up and hook the models themselves, so that a model is
called as if it were whole. Checkpoints are not the engine's, but those of any other run: whole weights, and
a state without pickled objects.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import deepspeed
import torch
from accelerate import Accelerator
from deepspeed.runtime.zero import GatheredParameters
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

Cut: TypeAlias = Any
"""A parameter that DeepSpeed has cut up: its own values are gone, ``ds_tensor`` is this process's part."""

SIZES = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
"""Buffers that accelerate fits to the model's width; by itself DeepSpeed takes 2 GB for the first."""


@contextmanager
def starting() -> Iterator[None]:
    """Keep from accelerate's start what nobody here wants of it."""
    # DeepSpeed calls what torch has renamed, at every layer.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.", FutureWarning)
    # A reduction over the processes of a CPU, compiled for minutes, which no training calls.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    yield
    _load_whole()


def settle(accelerator: Accelerator) -> None:
    """Settle what ``accelerate launch`` leaves open."""
    plugin = accelerator.state.deepspeed_plugin
    config = plugin.deepspeed_config
    # Trainer counts the micro-batches of a step, and says when it is over.
    config["gradient_accumulation_steps"] = 1
    config["train_batch_size"] = config["train_micro_batch_size_per_gpu"] * accelerator.num_processes
    for size in SIZES:
        config["zero_optimization"].setdefault(size, "auto")
    _load_whole()


def _load_whole() -> None:
    """Have transformers load whole models: once accelerate has told it of ZeRO-3, it cuts up each."""
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]  # theirs has no types


def watch(model: PreTrainedModel) -> None:
    """Leave the output head of ``model`` whole from its first use in a step to the end of the step.

    The terms are computed from its weight, outside of the modules that DeepSpeed gathers it for. Should it
    ever be let go of before, the hidden states do not fit to it, and the plain road is taken.
    """
    untyped: Any = model
    head = untyped.get_output_embeddings()
    for parameter in () if head is None else head.parameters(recurse=False):
        parameter.is_external_param = True


def shard_frozen(model: PreTrainedModel) -> None:
    """Cut up a model that is not trained, in place."""
    hidden = model.config.get_text_config().hidden_size
    sizes = {
        "stage3_prefetch_bucket_size": int(0.9 * hidden**2),
        "stage3_param_persistence_threshold": 10 * hidden,
    }
    deepspeed.initialize(
        model=model,
        config={"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3} | sizes},
    )
    watch(model)


def reshard(model: nn.Module) -> None:
    """Nothing: what a forward has gathered is let go layer by layer."""


def own_parts(model: nn.Module) -> Iterator[Tensor]:
    """What this process holds of each parameter."""
    parameters: Iterator[Cut] = model.parameters()
    for parameter in parameters:
        part, first = parameter.ds_tensor, _first(parameter)
        # The last parts of a parameter that does not divide are filled up with whatever lay in memory.
        yield part[: max(0, min(part.numel(), parameter.ds_numel - first))]


def whole(parameter: nn.Parameter) -> Tensor:
    """A parameter as it is now; all processes at once."""
    with GatheredParameters([parameter]):
        return parameter.detach().clone()


def put(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter a whole new value, of which each process takes its part."""
    with GatheredParameters([parameter], modifier_rank=0):
        parameter.copy_(value)
    safe_set_local_fp32_param(parameter, _part(value.to(parameter.device), parameter))


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """The whole state, in the form that one process gives it; all processes at once."""
    engine = optimizer.optimizer
    state: dict[int, dict[str, Tensor]] = {}
    groups = [
        {key: value for key, value in group.items() if key != "params"} | {"params": []}
        for group in engine.param_groups
    ]
    for number, parameters, flat in _flat(engine):
        for parameter in parameters:
            groups[number]["params"].append(len(state))
            state[len(state)] = {  # each with a count of its own: one for all would count for each of them
                key: safe_get_full_optimizer_state(parameter, key).cpu()
                if value.dim()
                else value.cpu().clone()
                for key, value in engine.optimizer.state[flat].items()
            }
    return {"state": state, "param_groups": groups}


def load_optimizer_state(optimizer: Any, state: dict[str, Any]) -> None:
    """Take back what ``optimizer_state`` gave: each process its part."""
    engine = optimizer.optimizer
    for group, kept in zip(engine.param_groups, state["param_groups"], strict=True):
        group.update({key: value for key, value in kept.items() if key != "params"})
    values_of = (state["state"][place] for group in state["param_groups"] for place in group["params"])
    for number, parameters, flat in _flat(engine):
        device = flat.device if engine.param_groups[number]["fused"] else "cpu"
        for parameter in parameters:
            for key, value in next(values_of).items():
                if value.dim():
                    engine.optimizer.state[flat].setdefault(key, torch.zeros_like(flat))
                    part = _part(value.to(flat.device), parameter)
                    safe_set_local_optimizer_state(parameter, part, key)
                else:  # a count of steps
                    engine.optimizer.state[flat][key] = value.clone().to(device)


def _flat(engine: Any) -> Iterator[tuple[int, list[Cut], Tensor]]:
    """What the engine's optimizer steps: the number of a group, some of its parameters in their order, and
    this process's parts of them laid end to end."""
    return zip(
        engine.sub_group_to_group_id.values(),
        engine.fp16_groups,
        engine.fp32_partitioned_groups_flat,
        strict=True,
    )


def _first(parameter: Cut) -> int:
    """Where this process's part of a parameter begins."""
    rank: int = torch.distributed.get_rank(parameter.ds_process_group)
    return rank * int(parameter.ds_tensor.numel())


def _part(value: Tensor, parameter: Cut) -> Tensor:
    """This process's part of a tensor that lies along a parameter, filled up with zeros."""
    first, size = _first(parameter), int(parameter.ds_tensor.numel())
    part = value.flatten()[first : first + size]
    return torch.nn.functional.pad(part, (0, size - part.numel()))
