"""A small local pair, a small data set, and the real command."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import Browser

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["the", "a", "cat", "dog", "sun", "sea", "likes", "sees", "finds", "red", "blue", "big", "tree"]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def small_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``teacher/`` and ``student/`` (random Llamas with one tokenizer) and ``rows.jsonl``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.training import tiny_llama

    folder = tmp_path_factory.mktemp("pair")
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<eos>", *WORDS, "?", "."])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    for name, model in {"teacher": tiny_llama(2, width=24, layers=3), "student": tiny_llama(1)}.items():
        model.save_pretrained(folder / name)
        fast.save_pretrained(folder / name)
    chance = random.Random(0)
    rows = [
        {
            "prompt": f"{' '.join(chance.choices(WORDS, k=4))} ?",
            "response": f"{' '.join(chance.choices(WORDS, k=chance.choice([2, 9])))} .",
        }
        for _ in range(200)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small_arguments(small_pair: Path) -> list[str]:
    """Overrides for a run of seconds on the small pair."""
    return [
        f"model.teacher.path={small_pair / 'teacher'}",
        f"model.student.path={small_pair / 'student'}",
        f"data.train_file={small_pair / 'rows.jsonl'}",
        "rollouts.max_new_tokens=8",
        "eval.generation_rows=4",
        "eval.max_new_tokens=8",
        "eval.during_training_rows=4",
        "trainer.per_device_train_batch_size=4",
        "trainer.max_steps=20",
        "trainer.learning_rate=1e-2",
        "trainer.warmup_steps=0",
        "trainer.logging_steps=2",
        "trainer.eval_steps=8",
        "trainer.save_steps=6",
    ]


def environment() -> dict[str, str]:
    """The environment of a child process: this one's, one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}


@pytest.fixture(scope="session")
def run_command() -> Command:
    """``run_command(*arguments, cwd=…, timeout=…)``: the real ``python run.py``, finished."""

    def run(
        *arguments: str, cwd: Path | None = None, timeout: float = 280
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd=cwd or ROOT,
            env=environment(),
        )

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        yield browser
        browser.close()
