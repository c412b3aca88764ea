"""Runs of seconds that can be killed: a tiny pair, cases over methods and adapters, what a run came to.

Imports cost ten seconds a process and change nothing. So they are done once, and each run is a fork of that.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = ["the", "a", "cat", "dog", "sun", "sea", "likes", "sees", "finds", "red", "blue", "big", "tree"]
LOG = "log"

SHORT = [
    "run.threads=1",
    "data.max_eval_rows=8",
    "rollouts.max_new_tokens=6",
    "eval.generation_rows=2",
    "eval.max_new_tokens=4",
    "eval.metrics=[likelihood,agreement]",
    "eval.during_training_rows=4",
    "trainer.per_device_train_batch_size=4",
    "trainer.max_steps=6",
    "trainer.learning_rate=1e-2",
    "trainer.warmup_steps=0",
    "trainer.logging_steps=1",
    "trainer.eval_steps=2",
    "trainer.save_steps=1",
    "trainer.save_total_limit=2",
]


@dataclass(frozen=True)
class Case:
    """A run to be disturbed."""

    name: str
    overrides: tuple[str, ...]


def cases() -> list[Case]:
    """Methods x adapters, with dropout in all; accumulation, workers, packing and caches lie across them."""
    found = []
    extras = [
        [],
        ["trainer.gradient_accumulation_steps=2"],
        ["trainer.dataloader_num_workers=1"],
        ["run.packing=true"],
        ["teacher_cache=topk", "teacher_cache.k=8"],
        ["teacher_cache=hidden"],
        ["trainer.load_best_model_at_end=true", "trainer.eval_steps=1"],
    ]
    number = 0
    for method in ("kd", "revkd", "gkd", "sft"):
        for peft in ("none", "lora", "ia3", "prefix", "prompt", "qlora"):
            number += 1
            extra = extras[number % len(extras)]
            if (peft in ("prefix", "prompt") and "run.packing=true" in extra) or (
                method == "sft" and "teacher_cache" in " ".join(extra)
            ):
                extra = extras[1]
            dropout = ["peft.lora_dropout=0.1"] if peft in ("lora", "qlora") else []
            words = (f"method={method}", f"peft={peft}", *dropout, *extra)
            found.append(Case(" ".join(words), words))
    return found


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word: ``WORDS``, ``?`` and ``.``, and no other."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<unk>", "<eos>", *WORDS, "?", "."])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs has no types
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>"
    )


def write_rows(file: Path, count: int) -> None:
    """Prompts of those words, with answers of which some are short and some long."""
    chance = random.Random(0)
    rows = [
        {
            "prompt": f"{' '.join(chance.choices(WORDS, k=4))} ?",
            "response": f"{' '.join(chance.choices(WORDS, k=chance.choice([2, 9])))} .",
        }
        for _ in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_pair(folder: Path) -> list[str]:
    """Write teacher, student (with dropout), tokenizer and rows; overrides for runs of seconds on them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer()
    for seed, (name, dropout) in enumerate({"teacher": 0.0, "student": 0.1}.items()):
        torch.manual_seed(seed)
        shape = LlamaConfig(
            vocab_size=64,
            hidden_size=64,  # what 4 bits ask for
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            attention_dropout=dropout,
            eos_token_id=1,
            pad_token_id=1,
            bos_token_id=None,
        )
        LlamaForCausalLM(shape).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    write_rows(folder / "rows.jsonl", 60)
    return [
        f"model.teacher.path={folder / 'teacher'}",
        f"model.student.path={folder / 'student'}",
        f"data.train_file={folder / 'rows.jsonl'}",
        *SHORT,
    ]


def import_everything() -> None:
    """What a run imports, once for all forks. Starts no thread: a fork has none of its parent's."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

    import distil.experiment
    import distil.report.comparison
    import distil.stages  # noqa: F401
    from distil.config.store import register_schemas

    register_schemas([])
    gc.collect()
    gc.freeze()  # or every collection in a fork walks, and copies, all that was imported


def forked(
    folder: Path,
    overrides: list[str],
    begin: Callable[[], None] | None = None,
    *,
    output: str = "outputs",
    log: str = LOG,
) -> int:
    """``distil run`` in a child of this process, in ``folder``; its words go to ``log``. Its process id.

    ``begin`` is called in the child before the command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    atexit._clear()  # what the parent does at its end
    try:
        os.chdir(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        from distil.cli import main

        if begin is not None:
            begin()
        code = main(["run", *overrides, f"output_dir={output}"])
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, timeout: float = 120.0) -> int:
    """The exit code of ``child``, negative for a signal; it is killed after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        there, status = os.waitpid(child, os.WNOHANG)
        if there:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"no end within {timeout:.0f} s")
        time.sleep(0.005)


def finished(folder: Path, overrides: list[str]) -> None:
    """The same command, to its end. Raises RuntimeError, with what was said last, where it has none."""
    code = ended(forked(folder, overrides))
    if code != 0:
        said = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:]
        raise RuntimeError(f"exit {code}: " + " / ".join(said))


def outcome(folder: Path) -> dict[str, bytes]:
    """What must not depend on whether a run was disturbed, by file name: student, scores, samples, losses."""
    (status,) = (folder / "outputs").glob("*/*/status.json")
    run = status.parent
    assert json.loads(status.read_text(encoding="utf-8"))["status"] == "done"
    files = [run / "results.json", run / "samples.jsonl", *(run / "student").rglob("*")]
    found = {file.relative_to(run).as_posix(): file.read_bytes() for file in files if file.is_file()}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    # Seconds differ. So may lines that a power cut took along, of steps that are not taken again.
    losses = [(line["step"], line.get("train/loss"), line.get("validation/nll_per_token")) for line in lines]
    return found | {"losses": json.dumps(losses).encode()}


def differing(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """The files of the finished run in ``folder`` that are not as ``expected``."""
    found = outcome(folder)
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
