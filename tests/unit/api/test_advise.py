"""What the library says before it trains, and what it shows while it does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel

from distil.api.advise import still_share
from llm_distil import DistillationConfig, KnowledgeDistillation, ReverseKnowledgeDistillation

Load = Callable[..., PreTrainedModel]
Make = Callable[..., DistillationConfig]


def test_tokenizers_that_end_or_write_chats_differently_are_told(
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    hub: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, change in (("chat", {"chat_template": "{{ messages }}"}), ("end", {"eos_token": "<|pad|>"})):
        shutil.copytree(hub / "gpt2-medium", tmp_path / name)
        settings = tmp_path / name / "tokenizer_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text("utf-8")) | change), encoding="utf-8")
    KnowledgeDistillation(teacher, load("gpt2"), make())
    assert "Teacher and student" not in caplog.text
    chat, end = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("chat", "end"))
    KnowledgeDistillation(chat, load("gpt2"), make())
    assert "Teacher and student differ: only the teacher has a chat template" in caplog.text
    assert "end a response" not in caplog.text
    KnowledgeDistillation(end, load("gpt2"), make())
    assert "end a response with different tokens ('<|pad|>', '<|endoftext|>')" in caplog.text


def test_a_student_made_of_a_config_and_reverse_kl_alone_are_told(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    def said(kind: Any, student: PreTrainedModel) -> bool:
        caplog.clear()
        kind(teacher, student, make(kd_loss_weight=1.0)).train(rows.select(range(4)))
        return "random weights collapses under reverse KL" in caplog.text

    def made() -> PreTrainedModel:
        known: Any = load("gpt2")
        known.config.name_or_path = ""
        fresh: PreTrainedModel = type(known)(known.config)
        return fresh

    assert said(ReverseKnowledgeDistillation, made())
    assert not said(KnowledgeDistillation, made())
    assert not said(ReverseKnowledgeDistillation, load("gpt2"))


def test_a_student_is_the_whole_teacher_by_the_models_in_hand(
    load: Load, make: Make, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One cut in memory, or loaded from elsewhere, is smaller, whatever the config names."""
    teacher, cut = load("gpt2-medium"), load("gpt2-medium")
    body: Any = cut.model
    body.layers = body.layers[:1]
    cut.config.num_hidden_layers = 1
    cut.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    name = str(teacher.name_or_path)
    for student, told in ((cut, False), (loaded, False), (load("gpt2-medium"), True)):
        caplog.clear()
        config = make()
        config.teacher_model_name = config.student_model_name = name
        KnowledgeDistillation(teacher, student, config).train(rows.select(range(4)))
        assert ("nothing gets smaller: give a smaller student_model, or" in caplog.text) is told


def test_the_share_of_weights_that_rounding_holds_is_what_a_step_shows() -> None:
    """Of numbers from 1 up, bfloat16 has one in 1/128: a step of less than half of that is lost."""
    weights = torch.nn.Linear(4, 1, bias=False)
    weights.weight.data = torch.tensor([[1.0, -1.0, 0.001, 0.0]])
    assert still_share(weights, 1e-3) == 0, "float32 moves"
    half = weights.to(torch.bfloat16)
    assert still_share(half, 1e-3) == 0.5
    assert still_share(half, 1e-2) == 0
    assert still_share(half.requires_grad_(False), 1e-3) == 0


def test_half_precision_weights_that_would_not_move_are_told(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    few = rows.select(range(4))
    KnowledgeDistillation(teacher, load("gpt2"), make(learning_rate=1e-8)).train(few)
    assert "lost in rounding" not in caplog.text
    assert caplog.text.count("learning_rate=1e-08 is unusual with peft_type=none") == 1
    half = load("gpt2", dtype=torch.bfloat16)
    KnowledgeDistillation(teacher, half, make(learning_rate=1e-6)).train(few)
    assert "is trained in bfloat16, in which a step of learning_rate=1e-06 is lost in rounding" in caplog.text


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

InteractiveShell.instance(config=Config(IPKernelApp={"what a kernel": "of a notebook has"}))
from IPython.utils.capture import capture_output
from datasets import load_from_disk
from transformers import AutoModelForCausalLM
from llm_distil import DistillationConfig, KnowledgeDistillation

config = DistillationConfig("gpt2-medium", "gpt2", epochs=1, batch_size=4, warmup_steps=0, logging_steps=2)
models = map(AutoModelForCausalLM.from_pretrained, ("gpt2-medium", "gpt2"))
learns = KnowledgeDistillation(*models, config)
with capture_output() as shown:
    learns.train(load_from_disk("rows"))
pages = [output.data.get("text/html", "") for output in shown.outputs]
assert any("<progress" in page for page in pages), shown
assert any("Training Loss" in page and str(learns.history[0]["loss"])[:5] in page for page in pages), pages
"""


def test_a_notebook_shows_progress(hub: Path, rows: Dataset, tmp_path: Path) -> None:
    """No terminal is there: Trainer's own table of a notebook is shown."""
    for name in ("gpt2", "gpt2-medium"):
        shutil.copytree(hub / name, tmp_path / name)
    rows.select(range(8)).save_to_disk(tmp_path / "rows")
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
