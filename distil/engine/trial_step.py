"""Optimizer, schedule, recomputation and compiler as the trainer's keys ask for them, tried on one number:
what they refuse is told before models load, and before anything is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import SGD, Optimizer
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments, get_scheduler

from distil.system.printable import one_line
from distil.types import InputError

STEPS = 10
"""Of the training that the schedule is tried for."""


def try_step(arguments: TrainingArguments, *, torchs_optimizer: bool) -> None:
    """Raise InputError, with the keys, for what cannot be made of ``arguments``.

    ``torchs_optimizer``: whether the optimizer is torch's own. Those of other packages, some of which want
    the model itself, are left to the training.
    """
    weight = Parameter(torch.ones(1))
    optimizer: Optimizer = SGD([weight])
    if torchs_optimizer and not arguments.optim_target_modules:
        with _told(arguments, "optim", "optim_args"):
            kind, keys = Trainer.get_optimizer_cls_and_kwargs(arguments)
            optimizer = kind([weight], **keys)
        _check_read(arguments, keys)
    more = arguments.lr_scheduler_kwargs
    with _told(arguments, "lr_scheduler_type", "lr_scheduler_kwargs"):
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=1,
            num_training_steps=STEPS,
            scheduler_specific_kwargs=more if isinstance(more, dict) else None,
        )
    recompute = arguments.activation_checkpointing_kwargs
    if arguments.activation_checkpointing and isinstance(recompute, dict):
        with _told(arguments, "activation_checkpointing_kwargs"):
            options: dict[str, Any] = {"use_reentrant": False} | recompute
            checkpoint(torch.neg, weight, **options)
    if arguments.torch_compile and arguments.torch_compile_backend:
        with _told(arguments, "torch_compile_backend", "torch_compile_mode"):
            torch.compile(
                torch.neg, backend=arguments.torch_compile_backend, mode=arguments.torch_compile_mode
            )


def _check_read(arguments: TrainingArguments, keys: dict[str, Any]) -> None:
    """Raise InputError where one of ``optim_args`` is not in the optimizer's ``keys``: it was passed over."""
    if not arguments.optim_args:
        return
    without = copy(arguments)
    without.optim_args = None
    _, usual = Trainer.get_optimizer_cls_and_kwargs(without)
    given = [part.partition("=")[0].strip() for part in arguments.optim_args.split(",")]
    unread = [key for key in given if key not in keys or (key in usual and keys[key] == usual[key])]
    if unread:
        raise InputError(
            f"trainer.optim_args={arguments.optim_args}: nothing reads {unread[0]} of "
            f"trainer.optim={getattr(arguments.optim, 'value', arguments.optim)}. Leave it out. "
            "(AdamW has keys of its own: trainer.adam_beta1, adam_beta2, adam_epsilon, weight_decay.)"
        )


@contextmanager
def _told(arguments: TrainingArguments, *keys: str) -> Iterator[None]:
    """Whatever is raised inside, which is a library's own of what it was given, as an InputError."""
    try:
        yield
    except Exception as error:
        values = {key: getattr(arguments, key) for key in keys}
        shown = " ".join(
            f"trainer.{key}={getattr(value, 'value', value)}" for key, value in values.items() if value
        )
        raise InputError(f"{shown}: {one_line(error, 300).rstrip('.')}.") from error
