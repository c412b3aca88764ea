"""The machine asks for its place back: real signals to the real command, which says so by its exit code."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Command, environment, hear_signals, started

PREEMPTED = 75
LONG = ["method=gkd", "trainer.max_steps=60", "trainer.save_steps=20", "trainer.dataloader_num_workers=1"]


def wait_for(there: Callable[[], object], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 200
    while not there():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


def status(output: Path) -> tuple[str, str]:
    (file,) = output.glob("*/*/status.json")
    told = json.loads(file.read_text(encoding="utf-8"))
    return told["status"], told["reason"]


def product(output: Path) -> dict[str, bytes]:
    """What must not depend on whether a run was stopped."""
    (folder,) = (file.parent for file in output.glob("*/*/status.json"))
    names = ("results.json", "samples.jsonl", "student/model.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def peace(
    tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str], run_command: Command
) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("peace")
    done = run_command(*small_arguments, *LONG, f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    return product(output)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_training_is_checkpointed_and_a_requeue_goes_on(
    name: str, peace: dict[str, bytes], small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Sent to the whole process group, and once more: the step is finished and saved, the run goes on."""
    arguments = [*small_arguments, *LONG, f"output_dir={tmp_path / 'out'}"]
    log = tmp_path / "log"
    process = started(*arguments, log=log, session=True)
    wait_for(lambda: list(tmp_path.glob("out/*/*/checkpoints/checkpoint-20")), process, log)
    os.killpg(process.pid, getattr(signal, name))
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # Slurm sends it too, at the end of the grace time
    assert process.wait(timeout=60) == PREEMPTED, log.read_text()
    said = log.read_text(encoding="utf-8")
    assert f"{name}: stopping after this step, with a checkpoint." in said
    assert "goes on from the last checkpoint:\n  python run.py" in said
    assert "Traceback" not in said
    state, reason = status(tmp_path / "out")
    assert state == "interrupted"
    stopped = int(reason.removeprefix("Stopped after step ").split()[0])
    assert reason == f"Stopped after step {stopped} of 60 ({name})."
    assert list(tmp_path.glob(f"out/*/*/checkpoints/checkpoint-{stopped}")), "saved where it stopped"

    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert product(tmp_path / "out") == peace


def test_elsewhere_a_run_stops_at_once(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """While libraries load, and models are evaluated before and after training; nothing computed is lost."""
    many = tmp_path / "many.jsonl"  # evaluated one by one, so that there is time to be stopped
    many.write_text((small_pair / "rows.jsonl").read_text(encoding="utf-8") * 2, encoding="utf-8")
    words = ["method=kd", f"data.test_file={many}", "eval.batch_size=1", "trainer.max_steps=4"]
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = [*small_arguments, *words, f"output_dir={output}"]

    def stopped_once(there: Callable[[], object]) -> None:
        process = started(*arguments, log=log, session=True)
        wait_for(there, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == PREEMPTED, log.read_text()
        state, reason = status(output)
        assert (state, "SIGTERM" in reason) == ("interrupted", True)
        assert "Traceback" not in log.read_text()

    stopped_once(lambda: list(output.glob("*/*/status.json")) and status(output)[0] == "running")
    stopped_once(lambda: list(output.glob(".evaluations/*/evaluation.json")))
    (teacher,) = output.glob(".evaluations/*/evaluation.json")
    evaluated = teacher.stat().st_mtime_ns
    stopped_once(lambda: list(output.glob("*/*/checkpoints/checkpoint-4")))
    assert teacher.stat().st_mtime_ns == evaluated, "nobody evaluated it again"
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/*/before.json")}

    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in output.glob("*/*/before.json")} == before
    done = run_command(*arguments[:-1], f"output_dir={tmp_path / 'peace'}")
    assert done.returncode == 0, done.stderr
    assert product(output) == product(tmp_path / "peace")


def test_a_sweep_ends_with_the_same_code_and_goes_on(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = ["-m", *small_arguments, *LONG, "seed=0,1", f"output_dir={output}"]
    process = started(*arguments, log=log, session=True)
    wait_for(lambda: list(output.glob("*/*/checkpoints/checkpoint-20")), process, log)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == PREEMPTED, log.read_text()
    said = log.read_text(encoding="utf-8")
    assert "\nStopped with 0 of 2 jobs done (SIGUSR1). The same command goes on:" in said
    assert "Traceback" not in said
    sweep = json.loads((output / "default" / "sweep.json").read_text(encoding="utf-8"))
    assert sweep["status"] == "interrupted"
    assert [(job["status"], job["reason"]) for job in sweep["jobs"]] == [
        ("interrupted", "SIGUSR1"),
        ("pending", None),
    ]
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "1 begun before" in done.stdout


def test_a_terminal_that_closes_takes_no_run_along(small_arguments: list[str], tmp_path: Path) -> None:
    """As an ssh connection that breaks: the progress bar has nowhere to write, the checkpoint is there."""
    arguments = [*small_arguments, *LONG, "trainer.max_steps=2000", f"output_dir={tmp_path}"]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        hear_signals()
        os.execve(sys.executable, [sys.executable, str(ROOT / "run.py"), *arguments], environment())
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("*/*/checkpoints/checkpoint-20")):
        assert time.monotonic() < deadline
        assert os.read(terminal, 100_000)
    os.close(terminal)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == PREEMPTED
    assert status(tmp_path)[0] == "interrupted"


def test_a_signal_that_is_ignored_stays_so(small_arguments: list[str], tmp_path: Path) -> None:
    """nohup."""
    arguments = [*small_arguments, "method=sft", "trainer.max_steps=20", f"output_dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("*/*/before.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
