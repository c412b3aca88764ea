"""Depth pruning: keep some blocks of a decoder.

Which: by block influence (ShortGPT, Men et al. 2024, arXiv 2403.03853), one minus the mean cosine between
what goes into a block and what comes out. A block that hardly turns its input is missed the least.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distil.engine.modes import eval_mode
from distil.types import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel

CALIBRATION_ROWS = 30
"""How many training rows block influence is measured on."""

_MODES = ("training", "gradient_checkpointing")
"""Attributes of a module that say what it is doing, not what it is."""


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of the decoder's blocks and its name in the model.

    Raises InputError where no ModuleList has as many entries as the config has layers.
    """
    from torch import nn

    total = model.config.get_text_config().num_hidden_layers
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if not found:
        raise InputError(
            f"model.student.keep_layers: {type(model).__name__} does not keep its {total} blocks in one "
            "list, so they cannot be pruned."
        )
    # Other lists (of experts, of norms) may be as long: the blocks are the heaviest, the outermost of equals.
    return max(found, key=lambda item: sum(p.numel() for p in item[1].parameters()))


def per_layer_lists(config: PreTrainedConfig) -> dict[str, list[Any]]:
    """The config's lists with one entry a layer (``layer_types``, ``no_rope_layers``, …) by name."""
    total = config.num_hidden_layers
    return {
        key: list(value)
        for key, value in vars(config).items()
        if isinstance(value, (list, tuple))
        and len(value) == total
        and "layer" in key
        and key != "mlp_only_layers"
    }


def prune_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Keep only the blocks ``layers`` (rising indices) of ``model``, in place.

    Caches, per-layer lists of the config and what the blocks know of their own place are put right, so that
    the saved model loads with plain ``from_pretrained`` and gives the same logits. Raises InputError, leaving
    the model unusable, where a block of this architecture depends on its place in a way that pruning changes.
    """
    from torch import nn

    name, blocks = decoder_blocks(model)
    config = model.config.get_text_config()
    kept = nn.ModuleList([blocks[i] for i in layers])
    kept.train(blocks.training)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, kept)
    for new, block in enumerate(kept):
        for module in block.modules():
            # The slot of this block in a KV cache.
            if isinstance(getattr(module, "layer_idx", None), int):
                setattr(module, "layer_idx", new)  # noqa: B010  (modules promise no int attributes)
    cut = {key: [entries[i] for i in layers] for key, entries in per_layer_lists(config).items()}
    if getattr(config, "mlp_only_layers", None):
        cut["mlp_only_layers"] = [new for new, old in enumerate(layers) if old in config.mlp_only_layers]
    config.num_hidden_layers = len(layers)
    for key, entries in cut.items():
        setattr(config, key, entries)
    _check_rebuilds(model, name)


def block_influence(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[float]:
    """Influence of each block, 0 (turns nothing) to 2: 1 - mean cosine of its input and output over tokens.

    ``rows``: token ids, one row a forward pass, so that no padding is involved.
    """
    import torch

    _, blocks = decoder_blocks(model)
    sums = torch.zeros(len(blocks), dtype=torch.float64)

    def measure(index: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before: Tensor = args[0] if args else kwargs["hidden_states"]
            after: Tensor = output[0] if isinstance(output, tuple) else output
            cosines = torch.nn.functional.cosine_similarity(
                before.float(), after.float().to(before.device), dim=-1
            )
            sums[index] += cosines.double().sum().cpu()

        return hook

    hooks = [block.register_forward_hook(measure(i), with_kwargs=True) for i, block in enumerate(blocks)]
    try:
        with eval_mode(model), torch.no_grad():
            for row in rows:
                if row:
                    # The body alone: the head's logits are not needed.
                    model.base_model(
                        input_ids=torch.tensor([list(row)], device=model.device), use_cache=False
                    )
    finally:
        for handle in hooks:
            handle.remove()
    tokens = sum(len(row) for row in rows)
    if not tokens:
        raise ValueError("block_influence needs at least one token")
    return [1 - float(total) / tokens for total in sums]


def choose_layers(influence: Sequence[float], keep: int) -> list[int]:
    """The ``keep`` most influential blocks in their order; of equals, the earlier."""
    ranked = sorted(range(len(influence)), key=lambda i: (-influence[i], i))
    return sorted(ranked[:keep])


def _check_rebuilds(model: PreTrainedModel, name: str) -> None:
    """Raise InputError unless a model built from the cut config has the very blocks that were kept.

    Some architectures derive what a block is from its place (every n-th is sparse, scaled, without positions,
    shares another's cache). A pruned copy of those would be another model once saved and loaded.
    """
    import torch

    try:
        with torch.device("meta"):
            fresh = type(model)(copy.deepcopy(model.config))
        differences = _differences(model.get_submodule(name), fresh.get_submodule(name))
    except Exception as error:  # A config that no longer fits its own class fails in that class's own ways.
        differences = [f"{type(error).__name__}: {error}"]
    if differences:
        raise InputError(
            f"model.student.keep_layers: blocks of {type(model).__name__} depend on their place, so these "
            f"cannot be kept ({differences[0]}). Keep other layers, or all."
        )


def _differences(kept: nn.Module, fresh: nn.Module) -> list[str]:
    """Where two trees of modules differ in parameters' names and shapes or in plain attributes."""
    # Weights in 4 or 8 bits have no shape of their own: their modules' widths are compared below.
    packed = {n for n, p in kept.named_parameters() if not p.is_floating_point()}
    shapes = {n: tuple(p.shape) for n, p in kept.named_parameters() if n not in packed}
    rebuilt = {n: tuple(p.shape) for n, p in fresh.named_parameters() if n not in packed}
    found = [f"weights {n}" for n in shapes.keys() | rebuilt.keys() if shapes.get(n) != rebuilt.get(n)]
    twins = dict(fresh.named_modules())
    for name, module in kept.named_modules():
        twin = vars(twins[name]) if name in twins else {}
        for key, value in vars(module).items():
            plain = isinstance(value, (bool, int, float, str, type(None))) and not key.startswith("_")
            if plain and key not in _MODES and key in twin and twin[key] != value:
                found.append(f"{name}.{key} is {value}, rebuilt {twin[key]}")
    return found
