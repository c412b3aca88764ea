"""Small real runs of the trainer, shared by the invariant and contract tests."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    TrainingArguments,
)

from distil.config.schema import MethodConfig, RolloutConfig
from distil.engine.trainer import DistillationTrainer
from distil.methods.base import METHODS, Method
from distil.processes.sharded import starting
from distil.registry import load_plugins
from distil.types import IGNORE_INDEX

# A method of the user's own is held to the same contract: DISTIL_PLUGINS=FOLDER pytest tests/contract
load_plugins(filter(None, os.environ.get("DISTIL_PLUGINS", "").split(os.pathsep)))

METHOD_NAMES = sorted(METHODS.entries())
VOCABULARY = 64
EOS = 1
"""Also the padding id: the harder case."""


def tiny_llama(
    seed: int, width: int = 16, layers: int = 2, dropout: float = 0.0, tied: bool = True
) -> PreTrainedModel:
    """A random Llama of a few thousand parameters."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=128,
            attention_dropout=dropout,
            eos_token_id=EOS,
            pad_token_id=EOS,
            bos_token_id=None,
            tie_word_embeddings=tied,
        )
    )


def tiny_gpt2(seed: int, width: int = 16, layers: int = 2, dropout: float = 0.0) -> PreTrainedModel:
    """A random GPT-2 (absolute positions) of a few thousand parameters."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=width,
            n_layer=layers,
            n_head=2,
            n_positions=128,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            eos_token_id=EOS,
            bos_token_id=EOS,
            pad_token_id=EOS,
        )
    )


FAMILIES = {"llama": tiny_llama, "gpt2": tiny_gpt2}


def random_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of very different lengths, so that a wrong denominator shows; each response ends with EOS."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = [chance.randrange(2, VOCABULARY) for _ in range(chance.randint(1, 9))]
        response = [chance.randrange(2, VOCABULARY) for _ in range(chance.choice([1, 2, 12]))] + [EOS]
        rows.append(
            {
                "input_ids": prompt + response,
                "labels": [IGNORE_INDEX] * len(prompt) + response,
                "prompt_ids": prompt,
            }
        )
    return rows


def build_method(name: str, **keys: Any) -> Method[MethodConfig]:
    """The registered method ``name`` with its default config, but for ``keys``."""
    entry = METHODS.get(name)
    assert entry.config is not None
    method: Method[MethodConfig] = entry.factory(entry.config(**keys))
    return method


def name_of(score: object) -> str:
    """What a parametrised test is called by: the same in every process."""
    return str(getattr(score, "__name__", score))


@dataclass
class Setup:
    """One small training run, every part replaceable."""

    method: Method[MethodConfig]
    folder: Path
    family: str = "llama"
    batch: int = 4
    accumulation: int = 1
    steps: int = 3
    dropout: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=lambda: random_rows(24))
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    student: Callable[[], PreTrainedModel] | None = None
    """Builds another student than the family's."""
    teacher: Callable[[PreTrainedModel], PreTrainedModel] | None = None
    """Builds another teacher, from the student."""

    def trainer(self) -> DistillationTrainer:
        """A fresh trainer on fresh models: teacher and student are the same for every Setup of a family."""
        build = FAMILIES[self.family]
        arguments: dict[str, Any] = {
            "output_dir": str(self.folder),
            "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulation,
            "max_steps": self.steps,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "logging_steps": 1,
            "use_cpu": True,
            "seed": 3,
            "remove_unused_columns": False,
            "logging_nan_inf_filter": False,
        }
        options: dict[str, Any] = {
            "rollouts": RolloutConfig(max_new_tokens=12),
            "eos_ids": [EOS],
            "pad_id": EOS,
            "shared_vocabulary": VOCABULARY,
        }
        student = self.student() if self.student else build(1, dropout=self.dropout)
        build_teacher = self.teacher or (lambda _: build(2, width=24, layers=3).eval().requires_grad_(False))
        with starting():
            chosen = TrainingArguments(**(arguments | self.arguments))
        return DistillationTrainer(
            self.method,
            student,
            build_teacher(student),
            self.rows,
            chosen,
            **(options | self.options),
        )

    def train(self, resume: Path | None = None) -> DistillationTrainer:
        """Train and give back the trainer."""
        trainer = self.trainer()
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        return trainer


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """Largest difference between two models' parameters."""
    return max(
        float((x - y).detach().abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True)
    )


def losses(trainer: DistillationTrainer) -> list[float]:
    """The logged training losses in order."""
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]
