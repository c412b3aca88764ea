"""LoRA (Hu et al. 2021, arXiv 2106.09685): W + (alpha / r) B A, with B and A trained and W left alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from distil.adapters.base import Adapter, peft_model, register_adapter
from distil.adapters.targets import check_names, check_patterns, check_there, has_conv1d, resolve
from distil.config.schema import PeftConfig, check, check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEEP_BASE = (True, False, "gaussian", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base's own weights alone."""
REWRITE_BASE = ("pissa", "olora")
"""Those that take part of the base into the adapter, the same part each time."""


@dataclass
class LoraConfig(PeftConfig):
    """Keys of ``peft=lora``, under the names of ``peft.LoraConfig``."""

    name: str = "lora"
    r: int = 8
    """Rank: 4 to 64; more is more capacity."""
    lora_alpha: int = 16
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: float = 0.1
    """Dropout of what the adapter reads, while training."""
    target_modules: Any = None
    """Module names, a pattern, or ``all-linear`` (every linear module but the head). null: by family."""
    exclude_modules: Any = None
    """Module names, or a pattern, that get none although ``target_modules`` match them."""
    bias: str = "none"
    """Which biases of the base are trained too: ``none``, ``all``, ``lora_only``."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead (arXiv 2312.03732)."""
    init_lora_weights: Any = True
    """``true`` starts at the base; ``gaussian``, ``orthogonal`` too; ``pissa``, ``olora`` rewrite it."""
    modules_to_save: list[str] | None = None
    """Modules trained whole and saved beside the adapter."""
    layers_to_transform: list[int] | None = None
    """Indices of the blocks that get an adapter. null: all."""
    rank_pattern: Any = None
    """Another r for some modules, by name or pattern: ``{q_proj:4}``."""
    alpha_pattern: Any = None
    """Another lora_alpha for some modules, likewise."""

    def __post_init__(self) -> None:
        check(self.r >= 1, f"peft.r must be at least 1, got {self.r}.")
        check(self.lora_alpha >= 1, f"peft.lora_alpha must be at least 1, got {self.lora_alpha}.")
        check(0 <= self.lora_dropout < 1, f"peft.lora_dropout must lie in [0, 1), got {self.lora_dropout}.")
        for key in ("rank_pattern", "alpha_pattern"):
            check(
                _whole_numbers(pattern := getattr(self, key)),
                f"peft.{key}={pattern}: it takes whole numbers from 1 on by module, as in "
                f"'peft.{key}={{q_proj:4}}'.",
            )
        check_names("peft.target_modules", self.target_modules)
        check_names("peft.exclude_modules", self.exclude_modules)
        check_choice("peft.bias", self.bias, ("none", "all", "lora_only"))
        init = self.init_lora_weights
        check(
            init in (*KEEP_BASE, *REWRITE_BASE),
            f"peft.init_lora_weights={init} is unknown. Known: true, false, gaussian, orthogonal, pissa, "
            "olora. (pissa_niter_N splits the base by chance, so nobody could load the adapter again.)",
        )
        check(
            init != "orthogonal" or self.r % 2 == 0,
            f"peft.init_lora_weights=orthogonal needs an even peft.r, got {self.r}.",
        )


def _whole_numbers(pattern: Any) -> bool:
    """Whether it is a dict of them, or nothing."""
    return pattern is None or (
        isinstance(pattern, dict)
        and all(type(number) is int and number >= 1 for number in pattern.values())
        and all(isinstance(name, str) for name in pattern)
    )


L = TypeVar("L", bound=LoraConfig)


class LoraFamily(Adapter[L]):
    """What all adapters of PEFT's ``LoraConfig`` share."""

    peft_type = "LORA"
    own_keys: tuple[str, ...] = ()
    """Keys of ours that are none of PEFT's."""

    def wrap(
        self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """``student`` with two small matrices beside each target."""
        import peft
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

        blocks = int(getattr(student.config.get_text_config(), "num_hidden_layers", 0))
        beyond = [i for i in self.config.layers_to_transform or () if blocks and not 0 <= i < blocks]
        check(
            not beyond,
            f"peft.layers_to_transform={self.config.layers_to_transform}: the student has {blocks} blocks, "
            f"so indices lie in 0..{blocks - 1}.",
        )
        targets = resolve(student, self.config.target_modules, KNOWN)
        if self.config.exclude_modules is not None:
            check_there(student, "peft.exclude_modules", self.config.exclude_modules)
        for key in ("rank_pattern", "alpha_pattern"):
            check_patterns(student, f"peft.{key}", getattr(self.config, key))
        keys = self.keys("target_modules", *self.own_keys) | self.peft_keys()
        return peft_model(
            student, peft.LoraConfig, target_modules=targets, fan_in_fan_out=has_conv1d(student), **keys
        )

    def odd_size(self, student: PreTrainedModel) -> str | None:
        """A line where no adapted layer can have as high a rank as its adapter."""
        from peft.tuners.lora import LoraLayer

        layers = [layer for layer in student.modules() if isinstance(layer, LoraLayer) and layer.r]
        ranks = [max(layer.r.values()) for layer in layers]
        # PEFT knows no sides of some kinds of layer: they may have any rank.
        sides = [min(layer.in_features or sys.maxsize, layer.out_features or sys.maxsize) for layer in layers]
        if not ranks or any(rank <= side for rank, side in zip(ranks, sides, strict=True)):
            return None
        return (
            f"A rank of {max(ranks)} (peft.r) is more than the {max(sides)} that the layers with an adapter "
            "can have: the rest takes memory and time, and adds nothing."
        )

    def shape(self) -> dict[str, Any]:
        """Whether it is DoRA too."""
        return {"use_dora": False, **super().shape(), **self.peft_keys()}

    def peft_keys(self) -> dict[str, Any]:
        """Keys of ``peft.LoraConfig`` that make the kind."""
        return {}

    @property
    def keeps_base(self) -> bool:
        """Not where the initialisation rewrites the base or its biases are trained."""
        return self.config.bias == "none" and self.config.init_lora_weights in KEEP_BASE


@register_adapter("lora", LoraConfig)
class Lora(LoraFamily[LoraConfig]):
    """Low-rank adaptation."""
