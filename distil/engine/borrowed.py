"""A model that is lent to a training, and comes back as it was but for its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distil.engine.anatomy import innermost

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def borrowed(model: PreTrainedModel) -> Iterator[None]:
    """Lend ``model`` to a training, its trainer's making included.

    However that ends, what it put on the model beside new weights is taken off: the forward of mixed
    precision, gradient checkpointing, a cache that is switched off, gradients. It is in eval mode then.
    """
    outer, inner = model.__dict__, innermost(model)
    forward = outer.get("forward")
    use_cache = getattr(model.config, "use_cache", True)
    flags = [(m, m.gradient_checkpointing) for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    watched = hasattr(inner, "_require_grads_hook")
    try:
        yield
    finally:
        outer.pop("_original_forward", None)
        outer.pop("forward", None)
        if forward is not None:
            outer["forward"] = forward
        model.config.use_cache = use_cache
        for module, flag in flags:
            module.gradient_checkpointing = flag
        if not watched and hasattr(inner, "_require_grads_hook"):  # came with gradient checkpointing
            _unwatch(inner)
        model.zero_grad(set_to_none=True)
        model.train(False)


def _unwatch(inner: Any) -> None:
    """Older transformers remove the hook and keep its name."""
    inner.disable_input_require_grads()
    vars(inner).pop("_require_grads_hook", None)
