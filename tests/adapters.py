"""Every registered adapter on small saved bases, loaded as a run loads them; shared by several tests."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distil.adapters.base import ADAPTERS, Adapter
from distil.config.schema import (
    DataConfig,
    ExperimentConfig,
    MethodConfig,
    ModelConfig,
    PeftConfig,
    StudentConfig,
    TeacherConfig,
)
from distil.parts import load_adapted_student
from tests.training import EOS, FAMILIES, VOCABULARY

WIDTH = 64
"""Of the bases: 4 bits want multiples of 64."""

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "qlora": {"qlora-4": {"bits": 4}, "qlora-8": {"bits": 8}},
}
"""Registered names that stand in the grid more than once; every other one, a user's too, once."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    case: (name, keys) for name in ADAPTERS.entries() for case, keys in VARIANTS.get(name, {name: {}}).items()
}
"""Case to registered name and the keys that are not its defaults."""

ADAPTED = [case for case, (name, _) in CASES.items() if name != "none"]


def peft_config(case: str, *, dropout: bool = False, **keys: Any) -> PeftConfig:
    """The adapter's config: its defaults, those of the case, ``keys``. Without ``dropout`` its own is 0."""
    name, own = CASES[case]
    entry = ADAPTERS.get(name)
    assert entry.config is not None
    known = {field.name for field in fields(entry.config)}
    still = {} if dropout else {key: 0.0 for key in known if key.endswith("dropout")}
    # Few: rows are short, and the table of positions of a tiny GPT-2 is too.
    few = {"num_virtual_tokens": 6} if "num_virtual_tokens" in known else {}
    config: PeftConfig = entry.config(**(still | few | own | keys))
    return config


def adapter_of(case: str, **keys: Any) -> Adapter[Any]:
    """The adapter itself."""
    config = peft_config(case, **keys)
    return ADAPTERS.get(config.name).factory(config)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """As many words as the tiny models have ids: w2, w3, …; 1 is EOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<unk>": 0, "<eos>": EOS} | {f"w{i}": i for i in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )


def save_bases(folder: Path, **shape: Any) -> Path:
    """``folder`` with one saved base a family (``llama/``, ``gpt2/``), each with a tokenizer."""
    tokenizer = word_tokenizer()
    for family, build in FAMILIES.items():
        model = build(1, **({"width": WIDTH} | shape))
        with (
            torch.no_grad()
        ):  # random weights of .02 say nearly the same at every position: a slip would hide
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(5)
        model.save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    return folder


def experiment(base: Path, peft: PeftConfig, seed: int = 0, **student: Any) -> ExperimentConfig:
    """A config that names what loading a student needs."""
    return ExperimentConfig(
        seed=seed,
        method=MethodConfig(name="kd"),
        model=ModelConfig("custom", TeacherConfig(), StudentConfig(path=str(base), **student)),
        peft=peft,
        data=DataConfig(name="jsonl"),
    )


def load(
    base: Path, case: str, *, seed: int = 0, student: dict[str, Any] | None = None, **keys: Any
) -> PreTrainedModel:
    """The student behind its adapter, as ``distil.parts`` loads it. ``keys``: of the adapter's config."""
    config = experiment(base, peft_config(case, **keys), seed, **(student or {}))
    return load_adapted_student(config, word_tokenizer())[0]


def trained_names(model: nn.Module) -> set[str]:
    """Names of the parameters that require a gradient."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def frozen_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of everything that training must leave alone: parameters and buffers, quantised ones too."""
    trained = trained_names(model)
    frozen = {name: p for name, p in model.named_parameters() if name not in trained}
    frozen |= {f"{name} (state)": t for name, t in model.state_dict().items() if name not in trained}
    frozen |= {f"{name} (buffer)": t for name, t in model.named_buffers()}
    return {name: t.detach().clone() for name, t in frozen.items() if isinstance(t, Tensor)}


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the trained parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def stir(model: nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Move every trained parameter, so that the adapter does something, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
