"""What every test stands on: no network, one thread, fixed chance, tiny models, the folder of shared data."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports torch or a Hugging Face library: they read these once. Child processes inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_EVALUATE_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
for secret in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
    os.environ.pop(secret, None)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the cache of the process that started them
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="distil-tests-")
    atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)


class ModelFactory(Protocol):
    """Builds a small random causal language model, the same one for the same arguments."""

    def __call__(self, vocab: int = 64, *, seed: int = 0, **overrides: Any) -> PreTrainedModel: ...


def _build(config: Any, seed: int) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


def build_llama(vocab: int = 64, *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A Llama of 2 layers, width 32, 4 heads (2 for keys), in eval mode; ``overrides`` of its config."""
    from transformers import LlamaConfig

    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return _build(LlamaConfig(vocab_size=vocab, **shape | overrides), seed)


def build_gpt2(vocab: int = 64, *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A GPT-2 of 2 layers, width 32, 4 heads, no dropout, in eval mode; ``overrides`` of its config."""
    from transformers import GPT2Config

    shape: dict[str, Any] = {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    return _build(GPT2Config(vocab_size=vocab, **shape | overrides), seed)


@pytest.fixture(scope="session")
def tiny_llama() -> ModelFactory:
    """``tiny_llama(vocab=64, seed=0, …)``: rotary positions, grouped heads, untied head."""
    return build_llama


@pytest.fixture(scope="session")
def tiny_gpt2() -> ModelFactory:
    """``tiny_gpt2(vocab=64, seed=0, n_layer=2, …)``: absolute positions, Conv1D, tied head, pad = eos."""
    return build_gpt2


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real models and texts: ``DISTIL_SHARED_DATA``, or ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("DISTIL_SHARED_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared test data at {folder} (DISTIL_SHARED_DATA names another folder)")
    return folder


@pytest.fixture(autouse=True)
def fixed_chance() -> None:
    """Each test starts from the same random state, so that order and selection change nothing."""
    random.seed(0)
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed(0)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(1)
