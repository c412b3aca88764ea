"""A small local pair, a small data set, and the real command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from scripts.chaos.runs import word_tokenizer, write_rows
from tests.browser import Browser

ROOT = Path(__file__).resolve().parents[2]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def small_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``teacher/`` and ``student/`` (random Llamas with one tokenizer) and ``rows.jsonl``."""
    from tests.training import tiny_llama

    folder = tmp_path_factory.mktemp("pair")
    tokenizer = word_tokenizer()
    for name, model in {"teacher": tiny_llama(2, width=24, layers=3), "student": tiny_llama(1)}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    write_rows(folder / "rows.jsonl", 200)
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


def started(*arguments: str, log: Path | None = None, session: bool = False) -> subprocess.Popen[str]:
    """The real command, going. Its words go into ``log``, or into two pipes.

    ``session``: at the head of a process group of its own, as Slurm starts it.
    """
    with nullcontext(subprocess.PIPE) if log is None else log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            stdout=out,
            stderr=subprocess.PIPE if log is None else subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment(),
            start_new_session=session,
            preexec_fn=hear_signals,
        )


def hear_signals() -> None:
    """Ctrl-C and SIGHUP, also where these tests run in the background of a shell, or under nohup."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        yield browser
        browser.close()
