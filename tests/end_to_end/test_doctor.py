"""``distil doctor RUN``: a real run is whole; what of it is missing or changed is named, with exit code 1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distil import cli
from distil.system.locks import alone

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def finished(
    small_arguments: list[str], run_command: Command, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("doctor")
    done = run_command(*small_arguments, "trainer.max_steps=12", f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    return next(output.glob("*/*/status.json")).parent


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy under another name: runs are moved."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def doctor(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    code = cli.main(["doctor", str(run)])
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before, "it changes nothing"
    return code, capsys.readouterr().out


def flip(file: Path) -> None:
    """Another bit in the middle; size and time stay."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    time = file.stat().st_mtime_ns
    file.write_bytes(content)
    os.utime(file, ns=(time, time))


def test_a_whole_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = doctor(run, capsys)
    assert code == 0, said
    assert "whole: nothing is missing or changed" in said
    assert "checkpoint-6, checkpoint-12" in said
    assert "student are as they were when the run was done" in said
    assert "DAMAGED" not in said


DAMAGE = [
    ("checkpoints/checkpoint-6/optimizer.pt", "flip"),
    ("checkpoints/checkpoint-12/manifest.json", "cut"),
    ("checkpoints/checkpoint-12/model.safetensors", "remove"),
    ("student/model.safetensors", "flip"),
    ("student/config.json", "cut"),
    ("student/tokenizer.json", "remove"),
    ("manifest.json", "cut"),
    ("results.json", "flip"),
    ("samples.jsonl", "flip"),
    ("cost.json", "flip"),
    ("results.json", "cut"),
    ("results.json", "remove"),
    ("cost.json", "cut"),
    ("before.json", "cut"),
    ("environment.json", "cut"),
    ("status.json", "cut"),
    ("status.json", "empty"),
    ("config.yaml", "remove"),
    ("metrics.jsonl", "cut"),
    ("samples.jsonl", "remove"),
]


@pytest.mark.parametrize(("name", "how"), DAMAGE, ids=[" ".join(case) for case in DAMAGE])
def test_damage_is_named(name: str, how: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / name
    if how == "flip":
        flip(file)
    elif how == "empty":
        file.write_text("{}", encoding="utf-8")
    elif how == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 + 1])
    else:
        file.unlink()
    code, said = doctor(run, capsys)
    if name == "status.json":  # then nobody knows that it was done
        told = "cannot be read" if how == "cut" else "does not say how the run ended"
        assert f"{name} {told}" in said
    assert code == 1, said
    *folder, base = name.split("/")
    lines = [line for line in said.splitlines() if "DAMAGED" in line]
    assert any(base in line and all(part in line for part in folder) for line in lines), said
    if name.startswith("checkpoints/"):  # of a done run nothing goes on
        assert said.splitlines()[-1].startswith("The run is done:")


def test_what_was_edited_or_added_is_named_and_no_damage(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = run / "student" / "README.md"
    text = card.read_text(encoding="utf-8")
    card.write_text(f"{text}\nMine.\n", encoding="utf-8")
    (run / "student" / "vocab.txt").write_text("x", encoding="utf-8")
    code, said = doctor(run, capsys)
    assert code == 0, said
    for line in ("student/README.md was edited", "student/vocab.txt was added"):
        assert f"  {line} since the run was done\n" in said
    assert said.splitlines()[-1] == "whole: nothing else is missing or changed"
    card.unlink()
    for number in range(20):
        (run / "student" / f"{number}.bin").write_bytes(b"")
    code, said = doctor(run, capsys)
    assert code == 0, said
    assert "  student/README.md was removed since the run was done\n" in said
    assert "  and 14 more\n" in said
    assert cli.main(["generate", str(run), "--prompt", "cat", "--max-new-tokens", "1"]) == 0


@pytest.mark.parametrize("content", ["{}", None])
def test_a_student_whose_run_lost_its_status_is_refused_for_that(
    content: str | None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "status.json").unlink()
    if content is not None:
        (run / "status.json").write_text(content, encoding="utf-8")
    assert cli.main(["generate", str(run), "--prompt", "cat"]) == 2
    told = "status.json is missing" if content is None else "status.json does not say how the run ended"
    assert f"{told}, so its student may be any." in capsys.readouterr().err


def test_a_changed_config_is_not_the_runs_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "config.yaml"
    text = file.read_text(encoding="utf-8")
    assert "learning_rate: 0.01" in text
    file.write_text(text.replace("learning_rate: 0.01", "learning_rate: 0.02"), encoding="utf-8")
    code, said = doctor(run, capsys)
    assert code == 1
    assert "DAMAGED config.yaml or environment.json is not the run's own any more" in said


def test_a_run_that_was_killed_is_not_damaged(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a last line, no results yet: it goes on."""
    told = json.loads((run / "status.json").read_text(encoding="utf-8"))
    (run / "status.json").write_text(json.dumps(told | {"status": "interrupted"}), encoding="utf-8")
    metrics = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(metrics[:-10])
    for name in ("results.json", "cost.json", "samples.jsonl"):
        (run / name).unlink()
    code, said = doctor(run, capsys)
    assert code == 0, said
    assert "  goes on from checkpoint-12: python run.py" in said.splitlines()[-2]


def state(run: Path, **told: object) -> None:
    content = json.loads((run / "status.json").read_text(encoding="utf-8"))
    (run / "status.json").write_text(json.dumps(content | told), encoding="utf-8")


def test_a_running_run_is_alive_or_dead(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its lock tells, whatever status.json says; a dead one goes on from what verifies."""
    state(run, status="running")
    with alone(run, None):
        _, said = doctor(run, capsys)
        assert f"  at work: process {os.getpid()} on" in said
        assert "goes on" not in said
    flip(run / "checkpoints" / "checkpoint-12" / "model.safetensors")
    _, said = doctor(run, capsys)
    assert "  not at work: its process is gone" in said
    assert "  goes on from checkpoint-6: python run.py" in said
    shutil.rmtree(run / "checkpoints")
    _, said = doctor(run, capsys)
    assert "  goes on with training from its start: python run.py" in said


def test_no_command_is_offered_for_a_run_that_diverged(
    small_arguments: list[str], run_command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command would meet the same step again."""
    rates = ["trainer.learning_rate=1e30", "trainer.max_grad_norm=0", "trainer.save_steps=1"]
    ended = run_command(*small_arguments, *rates, f"output_dir={tmp_path}")
    assert ended.returncode == 1, ended.stderr
    folder = next(tmp_path.glob("*/*/status.json")).parent
    _, said = doctor(folder, capsys)
    assert "the same command would meet that step again" in said
    assert "goes on from" not in said
    assert cli.main(["generate", str(folder), "--prompt", "cat"]) == 2
    refused = capsys.readouterr().err
    assert "The same command would meet that step again: change what the reason names." in refused
    assert "goes on with it" not in refused
    assert "goes on from its last checkpoint" not in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("sealed", [True, False])
def test_lost_scores_are_noticed_where_the_status_is_lost_too(
    sealed: bool, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("status.json", "results.json", *(() if sealed else ("manifest.json",))):
        (run / name).unlink()
    code, said = doctor(run, capsys)
    assert code == 1
    for name in ("status.json", "results.json"):
        assert said.count(f"DAMAGED {name} is missing") == 1


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err
