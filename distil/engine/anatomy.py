"""The parts of a causal language model, however it is wrapped: what is inside, its body, head and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distil.head import Head


def innermost(model: nn.Module) -> Any:
    """The transformers model itself, whose signature says what it takes; PEFT's passes the rest through."""
    wrapped: Any = model
    return wrapped.get_base_model() if hasattr(model, "get_base_model") else model


def is_adapted(model: nn.Module) -> bool:
    """Whether PEFT wraps ``model``."""
    return hasattr(model, "peft_config")


def virtual_tokens(model: nn.Module) -> int:
    """How many learnt positions stand before those of a row (prefix, prompt and P-tuning); else 0."""
    config = getattr(model, "active_peft_config", None) if is_adapted(model) else None
    return int(config.num_virtual_tokens) if config is not None and config.is_prompt_learning else 0


def virtual_logits(model: nn.Module) -> int:
    """How many positions the output of ``model`` is longer than its input: a prefix is no position of it."""
    return 0 if has_prefix(model) else virtual_tokens(model)


def has_prefix(model: nn.Module) -> bool:
    """Whether a learnt prefix stands in the cache of every layer of ``model``."""
    wrapped: Any = model
    return virtual_tokens(model) > 0 and wrapped.active_peft_config.peft_type.value == "PREFIX_TUNING"


def to_device(model: nn.Module, device: torch.device | None) -> None:
    """Put ``model`` on ``device``, unless accelerate has spread or offloaded it."""
    offloaded = any(p.is_meta for p in model.parameters())
    if getattr(model, "hf_device_map", None) is None and not offloaded:
        model.to(device)


def eos_ids(settings: Any) -> set[int]:
    """Where a model ends its text, of a model's config or generation config: one id, several or none."""
    found = settings.eos_token_id
    return {i for i in (found if isinstance(found, (list, tuple)) else [found]) if i is not None}


def position_limit(model: nn.Module) -> int | None:
    """The longest row that fits into the model's table of positions, behind what a learnt prompt takes.

    None where it has no table.
    """
    config = innermost(model).config.get_text_config()
    # Rotary models go beyond the length they were trained for; a table of positions cannot.
    rotary = getattr(config, "rope_parameters", None) is not None
    limit = None if rotary else getattr(config, "max_position_embeddings", None)
    return None if limit is None else int(limit) - virtual_tokens(model)


def trained_length(model: nn.Module) -> int | None:
    """The longest row that its config says the model was made for; None where it says nothing."""
    config = innermost(model).config.get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    if length is None:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    if (
        rope.get("rope_type") == "yarn"
    ):  # it stretches what the model was trained for; others' length is whole
        length = max(length, (rope.get("factor") or 0) * (rope.get("original_max_position_embeddings") or 0))
    return int(length)


def plain_head(model: nn.Module) -> Head | None:
    """The output head of a causal LM as a matrix product, or None where it is something else.

    Knows final soft-capping (Gemma), ``logit_scale`` (Cohere) and ``logits_scaling`` (Granite). A head with
    an adapter on it, or one that is trained beside an adapter, is something else.
    """
    inner = innermost(model)
    module = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    if module is None or not _is_plain_linear(module):
        return None
    config = inner.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    return Head(module.weight, module.bias, scale, getattr(config, "final_logit_softcapping", None))


def _is_plain_linear(module: object) -> bool:
    # FSDP2 gives what it cuts up a class of its own; its weight is whole from a forward to the backward.
    kind = type(module)
    return kind is nn.Linear or (kind.__name__ == "FSDPLinear" and kind.__bases__[-1] is nn.Linear)


@dataclass(frozen=True, eq=False)
class Opening:
    """What a learnt prompt puts before rows, as arguments for the innermost model."""

    arguments: dict[str, Any]
    mask_BT: Tensor
    positions_BT: Tensor


def positions(mask_BT: Tensor) -> Tensor:
    """Positions counted over real tokens only, so that padding on either side changes nothing (GPT-2 needs
    it)."""
    return (mask_BT.cumsum(-1) - 1).clamp(min=0)


def opening(model: nn.Module, ids_BT: Tensor, mask_BT: Tensor) -> Opening:
    """The first call of the innermost model for rows behind the learnt prompt of ``model``, wherever their
    padding is.

    PEFT's own forward drops position ids for prompts in the embeddings, so that left padding would move every
    row; here positions are counted over real and learnt tokens.
    """
    wrapped: Any = model
    count, width = virtual_tokens(model), ids_BT.shape[1]
    mask_BT = torch.cat([mask_BT.new_ones(len(mask_BT), count), mask_BT], dim=1)
    positions_BT = positions(mask_BT)
    learnt = wrapped.get_prompt(len(ids_BT))
    if virtual_logits(model) == 0:
        arguments = {"input_ids": ids_BT, "past_key_values": learnt}
        return Opening(arguments, mask_BT, positions_BT[:, -width:])
    embedded_BTH = wrapped.word_embeddings(ids_BT)
    arguments = {"inputs_embeds": torch.cat([learnt.to(embedded_BTH.dtype), embedded_BTH], dim=1)}
    return Opening(arguments, mask_BT, positions_BT)
