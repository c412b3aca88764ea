"""The config of an untrained student: its teacher's, with other sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distil.models.pruning import per_layer_lists
from distil.registry import unknown_name
from distil.system.printable import one_line
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_KEY = "model.student.overrides"


def changed_config(config: PreTrainedConfig, overrides: dict[str, Any]) -> PreTrainedConfig:
    """A copy of ``config`` with ``overrides``; what follows from the old sizes follows from the new.

    Raises InputError for a key the config does not have or for sizes that do not go together.
    """
    values = config.to_dict()
    known = set(values) | set(config.attribute_map)
    for key in overrides:
        if key not in known or key == "model_type":
            raise InputError(unknown_name(_KEY, key, sorted(known - {"model_type"})))
    # GPT-2 stores hidden_size as n_embd: one spelling inside.
    wanted = {config.attribute_map.get(key, key): value for key, value in overrides.items()}
    try:
        _follow(config, values, wanted)
        changed = type(config).from_dict({**values, **wanted})
    except Exception as error:  # A wrong type fails in many ways, each config class in its own.
        raise InputError(f"{_KEY}={overrides}: {one_line(error, 600)}") from error
    _check_heads(changed)
    return changed


def _follow(config: PreTrainedConfig, values: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Change in ``values`` what only followed from sizes that ``wanted`` changes."""

    def stored(key: str) -> str:
        return config.attribute_map.get(key, key)

    layers, heads, hidden = (stored(k) for k in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    if layers in wanted:
        for key, entries in per_layer_lists(config).items():
            # A longer model gets the pattern that its class would give it.
            values[key] = entries[: wanted[layers]] if wanted[layers] <= len(entries) else None
    if values.get("num_key_value_heads") == values.get(heads) and heads in wanted:
        values["num_key_value_heads"] = wanted[heads]
    head = values.get("head_dim")
    if head and {heads, hidden} & wanted.keys() and head * values[heads] == values[hidden]:
        values["head_dim"] = wanted.get(hidden, values[hidden]) // wanted.get(heads, values[heads])


def _check_heads(config: PreTrainedConfig) -> None:
    hidden, heads = config.hidden_size, config.num_attention_heads
    if hidden % heads and not getattr(config, "head_dim", None):
        raise InputError(f"{_KEY}: hidden_size {hidden} is no multiple of num_attention_heads {heads}.")
    shared = getattr(config, "num_key_value_heads", None) or heads
    if heads % shared:
        raise InputError(
            f"{_KEY}: num_attention_heads {heads} is no multiple of num_key_value_heads {shared}. Set both."
        )
