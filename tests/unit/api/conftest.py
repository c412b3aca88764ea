"""The embedded pair as a user would load it, and rows of its grammar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llm_distil import DistillationConfig
from tests.guide.world import build, tokenised

Load = Callable[..., PreTrainedModel]
Make = Callable[..., DistillationConfig]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    build(folder)
    return folder


@pytest.fixture(scope="session")
def load(hub: Path) -> Load:
    """``load("gpt2")``: the model of that name, fresh."""
    return lambda name, **keys: AutoModelForCausalLM.from_pretrained(hub / name, **keys)


@pytest.fixture(scope="session")
def teacher(load: Load) -> PreTrainedModel:
    return load("gpt2-medium")


@pytest.fixture
def student(load: Load) -> PreTrainedModel:
    return load("gpt2")


@pytest.fixture(scope="session")
def tokenizer(hub: Path) -> PreTrainedTokenizerBase:
    """With pad = EOS, the harder case."""
    tokenizer = AutoTokenizer.from_pretrained(hub / "gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="session")
def rows(hub: Path) -> Dataset:
    """16 rows, padded on the right, with prompts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hub)
        return tokenised("train", 16)


@pytest.fixture
def make(hub: Path, tmp_path: Path) -> Make:
    """A config whose runs are short and lie in a folder of the test's own."""

    def config(**keys: Any) -> DistillationConfig:
        short: dict[str, Any] = {
            "epochs": 1,
            "batch_size": 4,
            "warmup_steps": 0,
            "learning_rate": 1e-3,
            "max_length": 96,
            "max_new_tokens": 8,
            "output_dir": str(tmp_path / "output"),
        }
        return DistillationConfig(str(hub / "gpt2-medium"), str(hub / "gpt2"), **(short | keys))

    return config
