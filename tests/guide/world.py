"""What a guide's blocks leave open: a small world in which hub names are folders, and the names they use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from distil.data.codec import Codec
from distil.data.embedded import generate_rows
from distil.models.sources import ASSETS

HUB = {"gpt2-large": "teacher", "gpt2-medium": "teacher", "gpt2": "student", "distilgpt2": "student"}
"""Hub names, and which of the embedded models stands for each: real ones, that speak."""

DOLLY = Path("databricks/databricks-dolly-15k")
DOLLY_ROWS = 1000


def build(folder: Path) -> None:
    """Folders named like the hub's models and data sets: ``from_pretrained`` and ``load_dataset`` find them
    from the working directory."""
    for name, asset in HUB.items():
        shutil.copytree(ASSETS / "embedded" / asset, folder / name)
    (folder / DOLLY).mkdir(parents=True)
    rows = [
        {"instruction": row["prompt"], "context": "", "response": row["response"], "category": "open_qa"}
        for row in generate_rows("train", DOLLY_ROWS, 1)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / DOLLY / "databricks-dolly-15k.jsonl").write_text(text, encoding="utf-8")


def tokenised(split: str, count: int, length: int = 96) -> Dataset:
    """Grammar rows as tokens with a prompt, padded on the right with EOS, as a user's map makes them."""
    tokenizer = AutoTokenizer.from_pretrained("gpt2")
    codec = Codec(tokenizer)
    rows = []
    for row in generate_rows(split, count, 2):
        prompt = codec.start_ids + codec.data([row["prompt"]])[0]
        ids = (prompt + codec.data([row["response"]])[0] + [codec.eos_id])[:length]
        room = length - len(ids)
        rows.append(
            {
                "text": row["prompt"] + row["response"],
                "input_ids": ids + [codec.eos_id] * room,
                "attention_mask": [1] * len(ids) + [0] * room,
                "prompt_input_ids": prompt,
                "prompt_attention_mask": [1] * len(prompt),
            }
        )
    return Dataset.from_list(rows)


def _logits() -> torch.Tensor:
    return torch.randn(2, 5, 11)


def _tokenizer() -> Any:
    tokenizer = AutoTokenizer.from_pretrained("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _config() -> Any:
    from llm_distil import DistillationConfig

    return DistillationConfig("gpt2-medium", "gpt2", epochs=1, max_length=96)


def _kd(made: dict[str, Any]) -> Any:
    from llm_distil import KnowledgeDistillation

    return KnowledgeDistillation(made["teacher"], made["student"], _config())


PROVIDED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "AutoModelForCausalLM": lambda _: AutoModelForCausalLM,
    "AutoTokenizer": lambda _: AutoTokenizer,
    "torch": lambda _: torch,
    "DistillationConfig": lambda _: type(_config()),
    "KnowledgeDistillation": lambda _: __import__("llm_distil").KnowledgeDistillation,
    "teacher": lambda _: AutoModelForCausalLM.from_pretrained("gpt2-medium"),
    "student": lambda _: AutoModelForCausalLM.from_pretrained("gpt2"),
    "model": lambda _: AutoModelForCausalLM.from_pretrained("gpt2"),
    "tokenizer": lambda _: _tokenizer(),
    "config": lambda _: _config(),
    "dataset": lambda _: tokenised("train", 8).remove_columns(["prompt_input_ids", "prompt_attention_mask"]),
    "tokens": lambda _: tokenised("train", 8).select_columns(["input_ids", "attention_mask"]),
    "train_dataset": lambda _: tokenised("train", 32),
    "eval_dataset": lambda _: tokenised("validation", 16),
    "test_dataset": lambda _: tokenised("test", 16),
    "teacher_logits": lambda _: _logits(),
    "student_logits": lambda _: _logits(),
    "mask": lambda _: torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "kd": _kd,
}
"""What a block may leave open, and what is supplied for it."""


def supply(names: set[str]) -> dict[str, Any]:
    """Fresh objects for these open names, and for nothing else."""
    unknown = names - PROVIDED.keys()
    assert not unknown, f"the block leaves {unknown} open"
    wanted = names | ({"teacher", "student"} if "kd" in names else set())
    made: dict[str, Any] = {}
    for name in PROVIDED:  # models before what is made of them
        if name in wanted:
            made[name] = PROVIDED[name](made)
    return {name: made[name] for name in names}
