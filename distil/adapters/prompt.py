"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): learnt embeddings before those of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distil.adapters.base import peft_model, register_adapter
from distil.adapters.prompts import PromptLearning, PromptLearningConfig
from distil.config.schema import check, check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class PromptConfig(PromptLearningConfig):
    """Keys of ``peft=prompt``, under the names of ``peft.PromptTuningConfig``."""

    name: str = "prompt"
    prompt_tuning_init: str = "SAMPLE_VOCAB"
    """Start: ``SAMPLE_VOCAB`` embeddings of random tokens, ``TEXT`` those of a text, ``RANDOM`` noise."""
    prompt_tuning_init_text: str | None = None
    """The text to start from; repeated or cut to num_virtual_tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        start, text = self.prompt_tuning_init, self.prompt_tuning_init_text
        check_choice("peft.prompt_tuning_init", start, ("RANDOM", "SAMPLE_VOCAB", "TEXT"))
        check(
            (start == "TEXT") == (text is not None),
            f"peft.prompt_tuning_init={start} with peft.prompt_tuning_init_text={text}: give both "
            "prompt_tuning_init=TEXT and its text, or neither.",
        )


@register_adapter("prompt", PromptConfig)
class Prompt(PromptLearning[PromptConfig]):
    """Learnt embeddings, the fewest parameters of all."""

    peft_type = "PROMPT_TUNING"

    def wrap(
        self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """``student`` behind a learnt prompt."""
        import peft

        self.check_context(student)
        # Started below: PEFT would load a tokenizer by a path that it keeps in the product.
        tokens = self.config.num_virtual_tokens
        wrapped = peft_model(student, peft.PromptTuningConfig, num_virtual_tokens=tokens)
        if self.config.prompt_tuning_init != "RANDOM":
            self._start_at_tokens(wrapped, student, tokenizer)
        return wrapped

    def _start_at_tokens(
        self, wrapped: Any, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
    ) -> None:
        import torch

        embedding: Any = student.get_input_embeddings()
        count = self.config.num_virtual_tokens
        if self.config.prompt_tuning_init == "TEXT":
            text = self.config.prompt_tuning_init_text
            ids = [] if tokenizer is None else tokenizer(text, add_special_tokens=False)["input_ids"]
            check(bool(ids), f"peft.prompt_tuning_init_text={text!r} holds no token.")
            chosen = torch.tensor((list(ids) * count)[:count])
        else:
            chosen = torch.randint(embedding.num_embeddings, (count,))
        learnt = wrapped.prompt_encoder[wrapped.active_adapter].embedding.weight
        with torch.no_grad():
            learnt.copy_(embedding.weight[chosen.to(embedding.weight.device)])
