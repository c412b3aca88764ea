"""P-tuning (Liu et al. 2021, arXiv 2103.10385): a learnt prompt that a small network writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distil.adapters.base import peft_model, register_adapter
from distil.adapters.prompts import NETWORK_GONE, PromptLearning, PromptLearningConfig
from distil.config.schema import check, check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class PtuningConfig(PromptLearningConfig):
    """Keys of ``peft=ptuning``, under the names of ``peft.PromptEncoderConfig``."""

    name: str = "ptuning"
    encoder_reparameterization_type: str = "MLP"
    """The network: ``MLP`` or ``LSTM``."""
    encoder_hidden_size: int | None = None
    """Its width. null: the model's."""
    encoder_num_layers: int = 2
    """Layers of the LSTM."""
    encoder_dropout: float = 0.0
    """Dropout of the LSTM."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kind, width = self.encoder_reparameterization_type, self.encoder_hidden_size
        check_choice("peft.encoder_reparameterization_type", kind, ("MLP", "LSTM"))
        check(width is None or width >= 1, f"peft.encoder_hidden_size must be at least 1, got {width}.")
        layers, dropout = self.encoder_num_layers, self.encoder_dropout
        check(layers >= 1, f"peft.encoder_num_layers must be at least 1, got {layers}.")
        check(0 <= dropout < 1, f"peft.encoder_dropout must lie in [0, 1), got {dropout}.")


@register_adapter("ptuning", PtuningConfig)
class Ptuning(PromptLearning[PtuningConfig]):
    """A learnt prompt behind a network that is left out of the product."""

    peft_type = "P_TUNING"

    @property
    def no_resume(self) -> str:
        """The network is left out."""
        return f"{NETWORK_GONE} peft=prompt."

    def wrap(
        self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """``student`` behind a prompt encoder."""
        import peft

        self.check_context(student)
        keys = self.keys()
        keys.setdefault("encoder_hidden_size", student.config.get_text_config().hidden_size)
        if self.config.encoder_reparameterization_type == "MLP":  # the others are the LSTM's, and PEFT warns
            del keys["encoder_num_layers"], keys["encoder_dropout"]
        return peft_model(student, peft.PromptEncoderConfig, **keys)
