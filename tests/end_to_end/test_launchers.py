"""A sweep through every launcher comes to the bytes of one process, also when a process of it dies."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Command, started
from tests.end_to_end.test_sweeps import told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
TWO = {
    "local_joblib": "hydra.launcher.n_jobs=2",
    "local_submitit": "hydra.sweeper.max_batch_size=2",
    "local_ray": "hydra.launcher.n_jobs=2",
}
DEADLY = """
import os, signal
from dataclasses import dataclass
from distil.config.schema import MethodConfig
from distil.losses import Term, cross_entropy
from distil.methods.base import Method, register_method
from distil.types import REFERENCE

@dataclass
class DeadlyConfig(MethodConfig):
    name: str = "deadly"

@register_method("deadly", DeadlyConfig)
class Deadly(Method[DeadlyConfig]):
    def terms(self, step: int) -> tuple[Term, ...]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return (Term(1.0, REFERENCE, cross_entropy),)
"""


@pytest.fixture(scope="module")
def arguments(small_arguments: list[str]) -> list[str]:
    short = ["trainer.max_steps=14", "eval.generation_rows=2", "eval.metrics=[likelihood,agreement]"]
    return ["-m", *small_arguments, *short]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, arguments: list[str], run_command: Command) -> bytes:
    """``comparison.json`` of the sweep in one process."""
    output = tmp_path_factory.mktemp("plain")
    done = run_command(*arguments, "method=sft,kd", "seed=0", f"output_dir={output}", timeout=900)
    assert done.returncode == 0, done.stderr
    return (output / "default" / "comparison.json").read_bytes()


def statuses(folder: Path) -> dict[str, Any]:
    return {" ".join(job["overrides"]): job["status"] for job in told(folder)["jobs"]}


@pytest.mark.parametrize("launcher", TWO)
def test_every_launcher_comes_to_the_same_comparison(
    launcher: str, arguments: list[str], expected: bytes, run_command: Command, tmp_path: Path
) -> None:
    command = [*arguments, f"hydra/launcher={launcher}", TWO[launcher], "method=sft,kd", "seed=0"]
    done = run_command(*command, f"output_dir={tmp_path}", timeout=900)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "default"
    assert (folder / "comparison.json").read_bytes() == expected
    assert set(statuses(folder).values()) == {"done"}
    for number in range(1, 3):
        assert f"job {number} of 2" in done.stderr
        assert f"job {number} done in" in done.stderr
    for file in folder.glob("*/environment.json"):
        assert json.loads(file.read_text(encoding="utf-8"))["threads"] == 1
    assert not list(folder.rglob("*.pkl")), "they hold the config of every job"
    assert not list(folder.rglob("multirun.yaml"))


def test_a_parallel_sweep_that_is_killed_goes_on(
    arguments: list[str], expected: bytes, run_command: Command, tmp_path: Path
) -> None:
    """kill -9 takes the jobs along, and the same command finishes what they began."""
    command = [
        *arguments,
        "hydra/launcher=local_joblib",
        "hydra.launcher.n_jobs=2",
        "method=sft,kd",
        "seed=0",
    ]
    command.append(f"output_dir={tmp_path}")
    folder, log = tmp_path / "default", tmp_path / "log"
    process = started(*command, log=log)
    deadline = time.monotonic() + 900
    while not list(folder.glob("*/checkpoints/checkpoint-6")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline + 60, "jobs end with their sweep"
        time.sleep(0.1)
    assert not (folder / "comparison.json").exists()
    done = run_command(*command, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "begun before" in done.stdout
    assert (folder / "comparison.json").read_bytes() == expected


def children(pid: int) -> list[int]:
    """Processes below ``pid``, its children's children too."""
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(below for child in found for below in children(child))]


def test_a_job_that_submitit_requeues_is_saved_first_and_goes_on(
    arguments: list[str], expected: bytes, tmp_path: Path
) -> None:
    """SIGUSR2, submitit's own sign: as Slurm sends it to a job that it takes the place from."""
    command = [*arguments, "hydra/launcher=local_submitit", TWO["local_submitit"], "method=sft,kd", "seed=0"]
    folder, log = tmp_path / "default", tmp_path / "log"
    process = started(*command, f"output_dir={tmp_path}", log=log)
    deadline = time.monotonic() + 900
    while not (found := list(folder.glob("kd-*/checkpoints/checkpoint-6"))):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    holder = (folder / f".{found[0].parents[1].name}.lock").read_text(encoding="utf-8")
    os.kill(int(holder.split()[1]), signal.SIGUSR2)
    assert process.wait(timeout=900) == 0, log.read_text()
    logs = "".join(file.read_text(encoding="utf-8") for file in folder.rglob("*_log.out"))
    assert "SIGUSR2: stopping after this step, with a checkpoint." in logs
    assert "Requeued job" in logs
    assert set(statuses(folder).values()) == {"done"}
    assert (folder / "comparison.json").read_bytes() == expected


@pytest.mark.parametrize("launcher", TWO)
def test_a_job_whose_process_dies_is_named_and_ends_no_other(
    launcher: str, arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """As one that takes more memory than there is: killed, without a word. It is of a plugin."""
    (tmp_path / "deadly.py").write_text(DEADLY, encoding="utf-8")
    (tmp_path / "conf" / "method").mkdir(parents=True)
    schema = "defaults: [/schema/method/deadly@_here_, _self_]\n"
    (tmp_path / "conf" / "method" / "deadly.yaml").write_text(schema, encoding="utf-8")
    plugin = [f"run.plugins=[{tmp_path / 'deadly.py'}]", "--config-dir", str(tmp_path / "conf")]
    command = [*arguments, f"hydra/launcher={launcher}", TWO[launcher], "method=deadly,sft", *plugin]
    done = run_command(*command, f"output_dir={tmp_path / 'out'}", timeout=900)
    assert done.returncode == 1, done.stderr
    assert statuses(tmp_path / "out" / "default") == {"method=deadly": "failed", "method=sft": "done"}
    assert "error: 1 of 2 jobs failed:\n  job 1 (method=deadly): " in done.stderr
    assert (tmp_path / "out" / "default" / "comparison.json").is_file()
