"""What prefix, prompt and P-tuning share: learnt positions before those of every row, and no merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from distil.adapters.base import Adapter
from distil.config.schema import PeftConfig, check

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class PromptLearningConfig(PeftConfig):
    """Keys that all of them have."""

    num_virtual_tokens: int = 20
    """How many learnt positions; rows have that many fewer."""

    def __post_init__(self) -> None:
        tokens = self.num_virtual_tokens
        check(tokens >= 1, f"peft.num_virtual_tokens must be at least 1, got {tokens}.")


NETWORK_GONE = "its files hold the finished prompt, not the network that wrote it. Go on with"

P = TypeVar("P", bound=PromptLearningConfig)


class PromptLearning(Adapter[P]):
    """An adapter whose parameters are a prompt."""

    virtual_tokens = True
    usual_rates = (1e-4, 1.0)

    def check_context(self, student: PreTrainedModel) -> None:
        """Raise InputError where the learnt positions leave no room for a row."""
        context = getattr(student.config.get_text_config(), "max_position_embeddings", None)
        tokens = self.config.num_virtual_tokens
        check(
            context is None or tokens < context,
            f"peft.num_virtual_tokens={tokens}: the student's context has {context} positions, so no row "
            f"would fit behind them. Give fewer than {context}; 8 to 100 is usual.",
        )

    @property
    def no_merge(self) -> str:
        """A prompt is no weight."""
        return (
            f"peft={self.config.name} learns positions before every row, not a change of the weights: there "
            "is nothing to merge. Load the base with PEFT: PeftModel.from_pretrained(base, student_folder)"
        )
