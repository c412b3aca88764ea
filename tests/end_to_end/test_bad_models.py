"""Bad models and bad places, through the real command: exit code 2, one message, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Command, environment


def check_refused(done: subprocess.CompletedProcess[str], output: Path, *said: str) -> None:
    """The command was refused with one message that holds all of ``said``, and left nothing."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    for words in said:
        assert words in done.stderr, done.stderr
    assert not list(output.rglob("status.json"))


def replaced(arguments: list[str], key: str, value: object) -> list[str]:
    return [word for word in arguments if not word.startswith(f"{key}=")] + [f"{key}={value}"]


@pytest.mark.parametrize(
    ("missing", "said"), [("config.json", "config.json"), ("model.safetensors", "safetensors")]
)
def test_folder_without_config_or_weights(
    missing: str,
    said: str,
    small_pair: Path,
    small_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(small_pair / "student", folder)
    (folder / missing).unlink()
    arguments = replaced(small_arguments, "model.student.path", folder)
    done = run_command(*arguments, f"output_dir={tmp_path / 'out'}")
    check_refused(done, tmp_path / "out", f"model.student.path={folder}", said)


def test_folder_that_does_not_exist(small_arguments: list[str], run_command: Command, tmp_path: Path) -> None:
    arguments = replaced(small_arguments, "model.teacher.path", tmp_path / "nowhere")
    done = run_command(*arguments, f"output_dir={tmp_path / 'out'}")
    check_refused(done, tmp_path / "out", f"model.teacher.path={tmp_path / 'nowhere'}", "no such folder")


def test_rows_longer_than_a_table_of_positions(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """GPT-2 holds so many tokens and no more: said, with the length that fits."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "short"
    shutil.copytree(small_pair / "student", folder)
    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=1, n_positions=9)
    GPT2LMHeadModel(config).save_pretrained(folder)
    arguments = replaced(small_arguments, "model.student.path", folder)
    done = run_command(*arguments, f"output_dir={tmp_path / 'out'}")
    check_refused(done, tmp_path / "out", "data.max_length=9", "model.student has 9 positions")


def test_several_processes(
    small_arguments: list[str], run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable alone: torchrun sets more."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = run_command(*small_arguments, f"output_dir={tmp_path / 'out'}")
    check_refused(done, tmp_path / "out", "WORLD_SIZE=2", "start it by torchrun")


def test_tokenizers_that_differ(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """The message says how they differ: sizes, or the first id that means another token."""
    folder = tmp_path / "other"
    shutil.copytree(small_pair / "teacher", folder)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    done = run_command(
        *replaced(small_arguments, "model.teacher.path", folder), f"output_dir={tmp_path / 'out'}"
    )
    check_refused(done, tmp_path / "out", "model.teacher.path", "model.student.path", "cat", "dog")


def test_layers_that_are_not_there(small_arguments: list[str], run_command: Command, tmp_path: Path) -> None:
    done = run_command(*small_arguments, "model.student.keep_layers=[0,5]", f"output_dir={tmp_path}")
    check_refused(done, tmp_path, "model.student.keep_layers", "5", "0..1")


def test_method_that_needs_a_teacher(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    arguments = [word for word in small_arguments if not word.startswith("model.teacher.path")]
    done = run_command("method=kd", *arguments, f"output_dir={tmp_path}")
    check_refused(done, tmp_path, "model.teacher.path", "method=sft")


def test_hub_name_without_a_network(small_pair: Path, tmp_path: Path) -> None:
    """An address that swallows packets: refused within 5 seconds, not 50 (trap 46)."""
    variables = {key: value for key, value in environment().items() if "OFFLINE" not in key}
    variables |= {"HF_ENDPOINT": "http://192.0.2.1", "HF_HOME": str(tmp_path / "cache")}
    started = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "run.py"),
            "model.teacher.path=someone/large",
            "model.student.path=someone/small",
            f"data.train_file={small_pair / 'rows.jsonl'}",
            f"output_dir={tmp_path / 'out'}",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=variables,
        timeout=60,
    )
    seconds = time.monotonic() - started
    check_refused(done, tmp_path / "out", "model.teacher.path=someone/large")
    assert seconds < 5 + 5, "the probe takes 4 s at most; the rest is a busy machine's start-up"


def test_output_folder_that_cannot_be_written(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """A file where a folder should be; and, where permissions count (not for root), a read-only folder."""
    (tmp_path / "file").write_text("taken", encoding="utf-8")
    places = [tmp_path / "file" / "out"]
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        places.append(tmp_path / "locked" / "out")
    for place in places:
        done = run_command(*small_arguments, f"output_dir={place}")
        check_refused(done, tmp_path, f"output_dir={place}")


def test_disk_too_small_for_the_checkpoints(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """As many checkpoints as no disk holds: refused with both sizes before training."""
    done = run_command(*small_arguments, "trainer.save_total_limit=10000000000", f"output_dir={tmp_path}")
    check_refused(done, tmp_path, f"output_dir={tmp_path}", "are free", "trainer.save_total_limit")


def test_keys_that_transformers_refuses_together(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Of a sweep before its first job, however good that one is."""
    plateau = "trainer.lr_scheduler_type=reduce_lr_on_plateau"
    arguments = [*small_arguments, "trainer.eval_strategy=no", f"output_dir={tmp_path}"]
    told = ("trainer: transformers refuses these keys together", "requires an eval strategy")
    check_refused(run_command(*arguments, plateau), tmp_path, *told)
    swept = run_command("-m", *arguments, plateau.replace("=", "=constant,"))
    check_refused(swept, tmp_path, f"job 2 of 2 ({plateau}), so none was started", *told)
