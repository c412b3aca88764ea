"""Whether an adapter belongs to a base: told from the weights, not from a name or a place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROWS = 64
"""Of a matrix that are looked at."""


PACKED = "packed"
"""What stands for the linear weights where they are held in 4 or 8 bits."""


def base_print(model: PreTrainedModel) -> str:
    """Two prints of ``model``, joined by a dot; take them before an adapter is on.

    The first is of what quantisation leaves alone: the shape, some of the embeddings, norms and biases. The
    second is of the linear weights, some rows of each, or ``packed``: a base in few bits and its floats are
    one. Values are read as bfloat16, so that a float32 and a bfloat16 copy are one too.
    """
    text = model.config.get_text_config()
    shape = [text.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size]
    weight_VH = getattr(model.get_input_embeddings(), "weight", None)
    named = sorted(model.named_parameters(), key=lambda pair: pair[0])
    kept = [] if weight_VH is None else [weight_VH]
    kept += [p for _, p in named if p.ndim == 1 and p.is_floating_point()]
    linear = [p for _, p in named if p.ndim > 1 and p is not weight_VH]
    packed = not all(p.is_floating_point() for p in linear)
    return f"{_digest(repr(shape), kept)}.{PACKED if packed else _digest('', linear)}"


def _digest(opening: str, parameters: Iterable[Tensor]) -> str:
    """Sixteen hex digits of ``opening`` and of some rows of each parameter."""
    import torch

    digest = hashlib.sha256(opening.encode())
    for parameter in parameters:
        rows = parameter[:: max(1, len(parameter) // ROWS)] if parameter.ndim > 1 else parameter
        values = rows.detach().to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
