"""Whether an adapter belongs to a base: told from the weights, not from a name or a place."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 64
"""Embeddings looked at."""


def base_print(model: PreTrainedModel) -> str:
    """Sixteen hex digits of the shape of ``model``, some of its embeddings and all its norms.

    Quantisation leaves those alone, so that a base in 4 bits and in floats are one; they are read as
    bfloat16, so that a float32 and a bfloat16 copy are. Take it before an adapter is on.
    """
    import torch

    text = model.config.get_text_config()
    shape = [text.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size]
    digest = hashlib.sha256(repr(shape).encode())
    embedding = model.get_input_embeddings()
    weight_VH = getattr(embedding, "weight", None)
    parts = [] if weight_VH is None else [weight_VH[:: max(1, len(weight_VH) // ROWS)]]
    parts += [
        p for _, p in sorted(model.named_parameters()) if p.ndim == 1 and p.is_floating_point()
    ]  # norms and biases
    for part in parts:
        values = part.detach().to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
