"""Tokenizers: the real GPT-2 and stories260K, and a byte-level one that speaks ChatML."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""With a system prompt of its own, like SmolLM2's."""


@pytest.fixture(scope="session")
def gpt2(shared_data: Path) -> PreTrainedTokenizerBase:
    """The real GPT-2 tokenizer: no BOS, EOS ``<|endoftext|>``, no pad token."""
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "gpt2", local_files_only=True)


@pytest.fixture(scope="session")
def stories(shared_data: Path) -> PreTrainedTokenizerBase:
    """stories260K's: Llama-like, BOS put before a sequence, EOS of the same id."""
    return AutoTokenizer.from_pretrained(shared_data / "models" / "stories260K", local_files_only=True)


def byte_tokenizer(template: str | None = CHATML, **special: str) -> PreTrainedTokenizerBase:
    """A tokenizer of 256 bytes and ChatML's markers, built here; pad = eos = ``<|im_end|>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    markers = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    names = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"} | special
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=markers,
        **names,
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def chatml() -> PreTrainedTokenizerBase:
    """Bytes and ChatML: EOS closes the assistant's turn, pad = EOS."""
    return byte_tokenizer()


WriteJsonl = Callable[[str, Sequence[Mapping[str, Any]]], str]


@pytest.fixture
def jsonl(tmp_path: Path) -> WriteJsonl:
    """``jsonl(name, rows)`` writes a JSON Lines file and gives its path."""

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
        path = tmp_path / name
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
