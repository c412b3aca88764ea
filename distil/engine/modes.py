"""Models in another mode for a while: every module comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module is in the mode that it had, whatever its neighbours' is."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.train(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def without_checkpointing(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing off inside, as it would switch the cache off; afterwards back where it was."""
    on = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    try:
        for module in on:
            module.gradient_checkpointing = False  # type: ignore[assignment]  # a plain flag, not a submodule
        yield
    finally:
        for module in on:
            module.gradient_checkpointing = True  # type: ignore[assignment]
