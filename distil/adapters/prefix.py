"""Prefix tuning (Li and Liang 2021, arXiv 2101.00190): learnt keys and values before those of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distil.adapters.base import peft_model, register_adapter
from distil.adapters.prompts import NETWORK_GONE, PromptLearning, PromptLearningConfig
from distil.config.schema import check

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class PrefixConfig(PromptLearningConfig):
    """Keys of ``peft=prefix``, under the names of ``peft.PrefixTuningConfig``."""

    name: str = "prefix"
    prefix_projection: bool = False
    """Learn the prefix through a small network, which is left out of the product."""
    encoder_hidden_size: int | None = None
    """Width of that network. null: the model's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.encoder_hidden_size
        check(width is None or width >= 1, f"peft.encoder_hidden_size must be at least 1, got {width}.")
        check(
            width is None or self.prefix_projection,
            f"peft.encoder_hidden_size={width} is the width of the projection: add "
            "peft.prefix_projection=true.",
        )


@register_adapter("prefix", PrefixConfig)
class Prefix(PromptLearning[PrefixConfig]):
    """Learnt keys and values in every block."""

    peft_type = "PREFIX_TUNING"

    # PEFT: keys and values come as a cache, and checkpointing runs without one.
    gradient_checkpointing = False

    @property
    def no_resume(self) -> str | None:
        """A projection is left out."""
        return f"{NETWORK_GONE} peft.prefix_projection=false." if self.config.prefix_projection else None

    def wrap(
        self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """``student`` behind a learnt cache."""
        import peft

        self.check_context(student)
        keys = self.keys()
        if self.config.prefix_projection:
            keys.setdefault("encoder_hidden_size", student.config.get_text_config().hidden_size)
        return peft_model(student, peft.PrefixTuningConfig, **keys)
