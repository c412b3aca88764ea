"""A run from its first second to its last, through the real command: done, again, stopped, killed, failed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from distil.cli import _compose
from distil.config.command_line import expand
from distil.config.store import prepared, register_schemas
from distil.experiment import run
from tests.end_to_end.conftest import Command, started

LONG = ["trainer.max_steps=150", "trainer.save_steps=25", "trainer.eval_steps=25"]
"""Long enough to be stopped on the way."""


def only_run(output: Path) -> Path:
    (folder,) = [path.parent for path in output.glob("*/*/status.json")]
    return folder


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def weights(folder: Path) -> bytes:
    return (folder / "student" / "model.safetensors").read_bytes()


def steps_logged(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines if "train/loss" in line]


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str], run_command: Command
) -> Path:
    """The run directory of the long GKD run, left in peace."""
    output = tmp_path_factory.mktemp("peace")
    done = run_command("method=gkd", *small_arguments, *LONG, f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    return only_run(output)


def test_run_directory_is_complete(uninterrupted: Path) -> None:
    """Everything that the contract of a run directory names, and it says what happened."""
    names = {path.name for path in uninterrupted.iterdir()}
    files = (
        "config.yaml environment.json metrics.jsonl results.json cost.json samples.jsonl run.log report.html"
    )
    assert {*files.split(), "status.json", "checkpoints", "student"} <= names
    assert read(uninterrupted, "status.json")["status"] == "done"
    results, cost = read(uninterrupted, "results.json"), read(uninterrupted, "cost.json")
    for who in ("teacher", "student_before", "student_after"):
        assert set(results[who]) == set(results["metrics"])
    assert results["teacher"]["kl_to_teacher"] == 0
    assert results["student_after"]["kl_to_teacher"] < results["student_before"]["kl_to_teacher"]
    assert cost["steps"] == 150
    assert cost["rollouts"] == 600
    assert cost["rollout_tokens"] > 0
    assert cost["peak_memory_bytes"] > 1e8
    seconds = cost["seconds"]
    assert min(seconds[stage] for stage in ("load", "evaluate", "train", "validation")) > 0
    assert seconds["total"] == pytest.approx(sum(seconds.values()) - seconds["total"], abs=0.05)
    assert len(steps_logged(uninterrupted)) == 75
    sample = json.loads((uninterrupted / "samples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert set(sample) == {"prompt", "reference", "teacher", "student_before", "student_after"}


def test_student_loads_plainly(uninterrupted: Path) -> None:
    """The product needs nothing of ours, and its card says how it was made."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(uninterrupted / "student")
    tokenizer = AutoTokenizer.from_pretrained(uninterrupted / "student")
    assert model.config.use_cache
    ids = tokenizer("the cat sees ?", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=3).shape[1] > ids["input_ids"].shape[1]
    assert "python run.py method=gkd" in (uninterrupted / "student" / "README.md").read_text(encoding="utf-8")


def test_same_command_shows_what_is_done(
    uninterrupted: Path, small_arguments: list[str], run_command: Command
) -> None:
    """Without loading anything, and nothing in the folder changes."""
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    output = uninterrupted.parent.parent
    started = time.monotonic()
    again = run_command("method=gkd", *small_arguments, *LONG, f"output_dir={output}", "tracker=none")
    assert again.returncode == 0, again.stderr
    assert "run.rerun=true" in again.stdout
    assert "perplexity" in again.stdout
    assert time.monotonic() - started < 60
    assert before == {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}


def test_a_done_run_that_was_damaged_says_so(
    uninterrupted: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """A student cut short, a lost file: named with the way out. A card may be edited."""
    folder = tmp_path / uninterrupted.parent.name / uninterrupted.name
    shutil.copytree(uninterrupted, folder)
    arguments = ["method=gkd", *small_arguments, *LONG, f"output_dir={tmp_path}"]
    (folder / "student" / "README.md").write_text("mine", encoding="utf-8")
    assert run_command(*arguments).stderr == ""

    whole = weights(folder)
    (folder / "student" / "model.safetensors").write_bytes(whole[:-1])
    (folder / "samples.jsonl").unlink()
    shown = run_command(*arguments)
    size = f"student/model.safetensors has {len(whole) - 1} bytes instead of {len(whole)}"
    for problem in ("samples.jsonl is missing", size):
        told = f"warning: {folder}: {problem} since the run was done. run.rerun=true runs it again."
        assert told in shown.stderr.splitlines()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_goes_on_to_the_same_bits(
    stop: signal.Signals,
    uninterrupted: Path,
    small_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
) -> None:
    """Ctrl-C leaves a checkpoint and says so, a kill the last one; the same command ends to the same bits."""
    arguments = ["method=gkd", *small_arguments, *LONG, f"output_dir={tmp_path}"]
    process = started(*arguments)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not list(tmp_path.glob("*/*/checkpoints/checkpoint-50")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=100)
    folder = only_run(tmp_path)
    if stop is signal.SIGINT:
        assert process.returncode == 130
        assert "method=gkd" in errors, "the command to go on"
        assert read(folder, "status.json")["status"] == "interrupted"
    else:
        assert process.returncode == -signal.SIGKILL
        assert read(folder, "status.json")["status"] == "running"
    assert not (folder / "results.json").exists()
    before = read(folder, "spent.json")

    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    (going_on,) = re.findall(
        r"^(Going on from checkpoint-(\d+), after step \2\.)$", done.stderr, re.MULTILINE
    )
    log = (folder / "run.log").read_text(encoding="utf-8")
    stopped = ["The run ends with exit code 130: Stopped after step"] if stop is signal.SIGINT else []
    told = ["Begins: distil-runner ", *stopped, "Begins again: distil-runner ", going_on[0], "Done."]
    places = [log.index(line) for line in told]
    assert places == sorted(places)
    for begun in re.findall(r"Begins.*", log):
        assert re.search(r"process \d+ on \S+, .*: python run\.py method=gkd", begun)
    assert only_run(tmp_path) == folder
    assert weights(folder) == weights(uninterrupted)
    assert (folder / "results.json").read_bytes() == (uninterrupted / "results.json").read_bytes()
    assert (folder / "samples.jsonl").read_bytes() == (uninterrupted / "samples.jsonl").read_bytes()
    assert steps_logged(folder) == steps_logged(uninterrupted), "each step once"
    cost = read(folder, "cost.json")
    for stage in ("load", "evaluate"):
        assert cost["seconds"][stage] > before["seconds"][stage], "those of both sessions"
    assert cost["peak_memory_bytes"] >= before["peak_memory_bytes"]


def test_stopped_while_evaluated_goes_on_to_the_same_bits(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Ctrl-C after training: interrupted, and the same command takes no step more, within an epoch or not."""
    many = tmp_path / "many.jsonl"  # evaluated one by one, so that there is time to be stopped
    many.write_text((small_pair / "rows.jsonl").read_text(encoding="utf-8") * 4, encoding="utf-8")
    length = ["trainer.max_steps=21", f"data.test_file={many}", "eval.batch_size=1"]
    arguments = ["method=gkd", *small_arguments, *length]
    process = started(*arguments, f"output_dir={tmp_path / 'stopped'}")
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not list(tmp_path.glob("*/*/*/checkpoints/checkpoint-21")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert re.search(r"^Stopped after the last step\.|^Stopped\.", errors, re.MULTILINE), errors
    assert "error:" not in errors
    folder = only_run(tmp_path / "stopped")
    assert read(folder, "status.json")["status"] == "interrupted"

    for output in ("stopped", "peace"):
        done = run_command(*arguments, f"output_dir={tmp_path / output}")
        assert done.returncode == 0, done.stderr
        assert "missing keys" not in done.stderr
    other = only_run(tmp_path / "peace")
    assert weights(folder) == weights(other)
    for name in ("results.json", "samples.jsonl"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == len(
        (other / "metrics.jsonl").read_text().splitlines()
    )


def test_mixed_precision_trains_and_says_nothing(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """bf16 on a CPU: the head stays fused, and all three models are evaluated in their own precision."""
    done = run_command("method=kd", *small_arguments, "trainer.bf16=true", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert [line for line in warned if "changes nothing" not in line] == [], "but on small_arguments"
    results = read(only_run(tmp_path), "results.json")
    assert results["student_after"]["nll"] != results["student_before"]["nll"]


def test_the_same_command_at_the_same_time_waits_and_shows_the_run(
    small_arguments: list[str], tmp_path: Path
) -> None:
    """One process writes the directory: every step is logged once, and nothing of a lock is left."""
    arguments = ["method=sft", *small_arguments, f"output_dir={tmp_path}"]
    first = started(*arguments)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("default/*/status.json")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    second = started(*arguments)
    assert second.stderr is not None
    said = next((line for line in second.stderr if "in use" in line), "")
    first.send_signal(signal.SIGCONT)
    assert f"in use by process {first.pid} on {socket.gethostname()}: waiting for it to end." in said
    shown, errors = second.communicate(timeout=250)
    assert second.returncode == 0, errors
    assert "Done before" in shown
    _, errors = first.communicate(timeout=100)
    assert first.returncode == 0, errors
    folder = only_run(tmp_path)
    assert steps_logged(folder) == list(range(2, 21, 2))
    assert list(folder.parent.iterdir()) == [folder]


def test_what_begins_is_said_before_libraries_load_and_ctrl_c_is_answered(
    small_arguments: list[str], tmp_path: Path
) -> None:
    odd = "trainer.learning_rate=0.5"
    process = started("method=gkd", *small_arguments, odd, f"output_dir={tmp_path}")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert re.fullmatch(r"Run \S+ begins: libraries, models and data load first\.\n", line)
    line = process.stderr.readline()
    assert line.startswith(f"warning: {odd} is unusual with peft=none"), line
    assert not list(tmp_path.rglob("metrics.jsonl"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert re.search(r"(?m)^Stopped\.", errors), errors
    assert "Traceback" not in errors


def test_rerun_starts_afresh_in_a_new_folder(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """run.rerun=true leaves the done run alone."""
    arguments = ["method=sft", *small_arguments, "trainer.max_steps=2", f"output_dir={tmp_path}"]
    assert run_command(*arguments).returncode == 0
    first = only_run(tmp_path)
    done = run_command(*arguments, "run.rerun=true")
    assert done.returncode == 0, done.stderr
    second = first.with_name(f"{first.name}-r2")
    assert weights(first) == weights(second)


@pytest.mark.timeout(600)
def test_a_changed_setting_is_another_run_and_is_named(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """It does not go on from the unfinished run beside it, nor from checkpoints that somebody put there."""
    arguments = ["method=sft", *small_arguments, f"output_dir={tmp_path}"]
    assert run_command(*arguments).returncode == 0
    first = only_run(tmp_path)
    (first / "status.json").write_text('{"status": "running"}', encoding="utf-8")
    changed = [*arguments, "trainer.learning_rate=2e-2", "seed=0", "trainer.save_steps=10"]
    begun = run_command(*changed)
    assert begun.returncode == 0, begun.stderr
    told = "differs in trainer.learning_rate (0.01 there, 0.02 here)"
    assert f"It does not go on from {first}, which is unfinished and {told}.\n" in begun.stderr

    (second,) = (path for path in first.parent.iterdir() if path != first)
    (second / "status.json").unlink()
    shutil.rmtree(second / "checkpoints")
    shutil.copytree(first / "checkpoints", second / "checkpoints")
    refused = run_command(*changed)
    assert refused.returncode == 2
    assert (
        f"the checkpoint is of another run, {first.name.rpartition('-')[2]}, which {told}" in refused.stderr
    )
    assert "Traceback" not in refused.stderr
    assert run_command(*changed, "run.resume=false").returncode == 0


def test_a_run_without_a_teacher(
    small_arguments: list[str], small_pair: Path, run_command: Command, tmp_path: Path
) -> None:
    """SFT needs none: the table has no teacher, and what needs one is left out with a word."""
    arguments = [word for word in small_arguments if not word.startswith("model.teacher.path")]
    done = run_command("method=sft", *arguments, "trainer.max_steps=2", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    results = read(only_run(tmp_path), "results.json")
    assert results["teacher"] is None
    assert "kl_to_teacher" not in results["metrics"]
    assert any("teacher" in note for note in results["notes"])


def test_a_run_that_made_its_student_worse_says_so(run_command: Command, tmp_path: Path) -> None:
    """No number is broken, so the run is done; nobody should take that for a success."""
    short = [
        "trainer.max_steps=5",
        "data.max_train_rows=60",
        "data.max_eval_rows=8",
        "eval.generation_rows=2",
    ]
    rate = ["trainer.learning_rate=50", "trainer.warmup_steps=0"]
    done = run_command(*short, *rate, f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    worse = "The distilled student is worse than the untouched one on the test rows: nll "
    assert " ".join((done.stdout + done.stderr).split()).count(worse) == 1, "once, below the scores"
    run = only_run(tmp_path)
    (note,) = [note for note in read(run, "results.json")["notes"] if note.startswith(worse)]
    assert "learning_rate" not in note, "five steps show no curve, and the rate was warned of before"
    assert f"WARNING distil.stages: {worse}" in (run / "run.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("compared", [False, True])
def test_a_run_beside_others_says_its_lines_to_whoever_took_them(
    small_arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    compared: bool,
) -> None:
    """Without bars; that it made its student worse is said where nothing that follows says so."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rate = ["trainer.learning_rate=1", "trainer.max_steps=4", "method=kd", "teacher_cache=topk"]
    register_schemas()
    words = expand([*small_arguments, *rate, "output_dir='~/out'", "teacher_cache.folder='~/caches'"])
    config, said = prepared(_compose(words)[0], words), list[str]()
    folder = run(config, command="again", summary=False, say=said.append, watched=False, compared=compared)
    assert folder.is_relative_to(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "caches"}, "~ is nobody's folder"
    assert [line for line in said if line.startswith("Teacher cache: ")]
    shown = "".join(capfd.readouterr())
    assert "Teacher cache: " not in shown
    assert "training: step" not in shown
    worse = "warning: The distilled student is worse than the untouched one on the test rows: "
    assert shown.count(worse) == (not compared)
    assert worse.replace("warning: ", "") in (folder / "run.log").read_text(encoding="utf-8")


def test_not_a_number_fails_and_keeps_what_was_written(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """A learning rate that blows up: exit 1, status failed with step and rows, the log so far is there."""
    arguments = ["method=kd", *small_arguments, "trainer.learning_rate=1e30", "trainer.max_grad_norm=0"]
    done = run_command(*arguments, f"output_dir={tmp_path}")
    folder = only_run(tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    status = read(folder, "status.json")
    assert status["status"] == "failed"
    assert "step" in status["reason"]
    assert "nan" in status["reason"] or "inf" in status["reason"]
    assert (folder / "before.json").is_file()


def test_a_teacher_that_is_not_evaluated(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    done = run_command(*small_arguments, "eval.teacher=false", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("results.json")
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["teacher"] is None
    assert "kl_to_teacher" not in results["metrics"]


def test_packing_ends_in_the_same_scores(
    tmp_path: Path, small_arguments: list[str], run_command: Command
) -> None:
    """Twenty steps with rows end to end, twenty with padded ones; rollouts included."""
    runs = []
    for packing in ("true", "false"):
        output = tmp_path / packing
        arguments = ["method=gkd", *small_arguments, "trainer.max_steps=20", f"run.packing={packing}"]
        done = run_command(*arguments, f"output_dir={output}")
        assert done.returncode == 0, done.stderr
        runs.append(only_run(output))
    packed, padded = (read(run, "results.json")["student_after"] for run in runs)
    assert packed["kl_to_teacher"] == pytest.approx(padded["kl_to_teacher"], rel=1e-3)
    assert weights(runs[0]) != weights(runs[1]), "nothing was packed"
    assert read(runs[0], "cost.json")["rollout_tokens"] == read(runs[1], "cost.json")["rollout_tokens"] > 0


def test_evaluations_of_before_that_were_damaged_are_made_again(
    uninterrupted: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """What teacher and untouched student came to is a file like any other: cut, it costs seconds."""
    shutil.copytree(uninterrupted.parents[1], tmp_path / "o")
    folder = only_run(tmp_path / "o")
    (folder / "status.json").write_text(
        (folder / "status.json").read_text(encoding="utf-8").replace('"done"', '"interrupted"')
    )
    before = (folder / "before.json").read_bytes()
    (folder / "before.json").write_bytes(before[:50])
    again = run_command("method=gkd", *small_arguments, *LONG, f"output_dir={tmp_path / 'o'}")
    assert again.returncode == 0, again.stderr
    assert "before.json is damaged" in again.stderr
    assert (folder / "before.json").read_bytes() == before
    assert (folder / "results.json").read_bytes() == (uninterrupted / "results.json").read_bytes()
