"""``torchrun run.py``: several processes are one run, and end as one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distil.engine import checkpoints
from tests.end_to_end.conftest import ROOT, Command, environment
from tests.end_to_end.test_lifecycle import only_run, read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2000),  # each of up to five processes imports for itself
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo"),
]

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(ROOT / "run.py")]
SHORT = ["trainer.max_steps=6", "trainer.eval_steps=3", "trainer.save_steps=3"]

TWO = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
"""What torchrun tells the first of two processes."""

FAILS_IN_THE_SECOND = """
import os
from dataclasses import dataclass
from distil.config.schema import MethodConfig
from distil.losses import Term, cross_entropy
from distil.methods.base import Method, register_method
from distil.types import REFERENCE

@dataclass
class BrittleConfig(MethodConfig):
    name: str = "brittle"

@register_method("brittle", BrittleConfig)
class Brittle(Method[BrittleConfig]):
    def terms(self, step):
        if step == 4 and os.environ["RANK"] == "1":
            raise ZeroDivisionError("made to fail")
        return (Term(1.0, REFERENCE, cross_entropy),)
"""


def started(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment() | variables,
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    """All that it said."""
    out, err = process.communicate(timeout=900)
    assert process.returncode == code, err
    return out + err


@pytest.mark.parametrize(
    ("method", "cache"),
    [*((method, "none") for method in ("sft", "kd", "revkd", "gkd")), ("kd", "hidden"), ("gkd", "topk")],
)
def test_two_processes_are_one(
    method: str, cache: str, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Weights, scores, what was counted and logged; over the end of an epoch that divides by nothing."""
    common = [
        f"method={method}",
        f"teacher_cache={cache}",
        *small_arguments,
        *SHORT,
        "data.max_train_rows=13",
    ]
    two = started(*common, "trainer.per_device_train_batch_size=2", f"output_dir={tmp_path / 'two'}")
    said = finished(two)
    assert said.count("report.html") == 1
    done = run_command(*common, f"output_dir={tmp_path / 'one'}", timeout=600)
    assert done.returncode == 0, done.stderr
    one, two_runs = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    ours, theirs = (load_file(run / "student" / "model.safetensors") for run in (two_runs, one))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.allclose(ours[name], weight, atol=2e-4), name
    ours, theirs = read(two_runs, "results.json"), read(one, "results.json")
    for model in ("teacher", "student_before"):
        assert ours[model] == theirs[model]
    for metric, value in theirs["student_after"].items():
        assert ours["student_after"][metric] == pytest.approx(value, rel=1e-3, abs=1e-6), metric
    for count in ("steps", "scored_tokens", "rollout_tokens", "rollouts"):
        assert read(two_runs, "cost.json")[count] == read(one, "cost.json")[count], count
    logged = [(run / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for run in (two_runs, one)]
    assert len(logged[0]) == len(logged[1])
    checkpoint = two_runs / "checkpoints" / "checkpoint-6"
    assert checkpoints.verify(checkpoint) == []
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}


def test_stopped_and_gone_on_with_is_the_same(small_arguments: list[str], tmp_path: Path) -> None:
    """Ctrl-C at torchrun: all processes stop after one step with a checkpoint, and go on from it."""
    long = ["method=gkd", *small_arguments, "trainer.max_steps=60", "trainer.save_steps=20"]
    finished(started(*long, f"output_dir={tmp_path / 'whole'}"))
    process = started(*long, f"output_dir={tmp_path / 'parts'}")
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not list(tmp_path.glob("parts/*/*/checkpoints/checkpoint-20")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = "".join(process.communicate(timeout=300))
    run = only_run(tmp_path / "parts")
    assert read(run, "status.json")["status"] == "interrupted", said
    assert said.count("Stopped after step") == 1
    assert "torchrun --nproc_per_node=2 run.py method=gkd" in said
    said = finished(started(*long, f"output_dir={tmp_path / 'parts'}"))
    assert "Going on from checkpoint-" in (run / "run.log").read_text(encoding="utf-8")
    whole = only_run(tmp_path / "whole")
    for name, weight in load_file(whole / "student" / "model.safetensors").items():
        assert torch.equal(load_file(run / "student" / "model.safetensors")[name], weight), name
    assert (run / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def test_one_failure_is_one_message(small_arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "brittle.py").write_text(FAILS_IN_THE_SECOND, encoding="utf-8")
    (tmp_path / "conf" / "method" / "brittle.yaml").write_text(
        "# fails\ndefaults:\n  - /schema/method/brittle@_here_\n  - _self_\n", encoding="utf-8"
    )
    arguments = ["--config-dir", str(tmp_path / "conf"), "method=brittle", *small_arguments]
    process = started(
        *arguments, f"output_dir={tmp_path / 'out'}", DISTIL_PLUGINS=str(tmp_path / "brittle.py")
    )
    said = finished(process, code=1)
    reason = "Process 2 of 2: ZeroDivisionError: made to fail"
    assert said.count(f"error: {reason}") == 1
    assert str(ROOT / "distil") not in said, "a traceback, beside torchrun's own"
    run = only_run(tmp_path / "out")
    status = read(run, "status.json")
    assert (status["status"], status["reason"]) == ("failed", reason)
    assert "in terms\n" in (run / "run.log").read_text(encoding="utf-8"), "the traceback is kept"


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("method=kdd", "method=kdd"),
        ("-m", "-m under torchrun"),
        ("trainer.fsdp=full_shard", "trainer.fsdp"),
        ("trainer.train_sampling_strategy=group_by_length", "trainer.train_sampling_strategy"),
        ("trainer.save_on_each_node=true", "trainer.save_on_each_node"),
        ("model.student.device_map=auto", "model.student.device_map"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    argument: str, why: str, monkeypatch: pytest.MonkeyPatch, run_command: Command, tmp_path: Path
) -> None:
    """Before they meet: so one of them is enough to see it."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    done = run_command(argument, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    monkeypatch.setenv("RANK", "1")
    done = run_command(argument, cwd=tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (2, "")


FSDP = {"ACCELERATE_USE_FSDP": "true"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


@pytest.mark.parametrize(
    ("asked", "argument", "variable", "why"),
    [
        (FSDP, "peft=lora", "FSDP_VERSION=2", "peft=lora does not go with that"),
        (FSDP, "trainer.bf16=true", "FSDP_VERSION=2", "trainer.bf16=True does not go with that"),
        (FSDP, "model.student.dtype=bfloat16", "FSDP_VERSION=2", "Take float32"),
        (FSDP, "seed=1", "FSDP_VERSION=1", "fsdp_version 1"),
        (FSDP, "seed=1", "FSDP_CPU_RAM_EFFICIENT_LOADING=true", "fsdp_cpu_ram_efficient_loading"),
        (FSDP, "seed=1", "ACCELERATE_MIXED_PRECISION=bf16", "mixed_precision bf16"),
        (FSDP, "seed=1", "ACCELERATE_USE_MEGATRON_LM=true", "asks for Megatron-LM"),
        (FSDP, "seed=1", "WORLD_SIZE=1", "nothing to cut up"),
        (ZERO, "peft=lora", "RANK=0", "(DeepSpeed): peft=lora does not go with that"),
        (ZERO, "trainer.optim=adafactor", "RANK=0", "Take adamw_torch"),
        (ZERO, "trainer.use_cpu=true", "RANK=0", "leave out trainer.use_cpu"),
        (ZERO, "run.max_skipped_steps=1", "RANK=0", "run.max_skipped_steps=1 does not go with that"),
        (ZERO, "seed=1", "ACCELERATE_DEEPSPEED_ZERO_STAGE=2", "zero_stage 2; what works is 3"),
        (ZERO, "seed=1", "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE=cpu", "offload_param_device cpu"),
        (ZERO, "seed=1", "ACCELERATE_DEEPSPEED_CONFIG_FILE=zero.json", "deepspeed_config_file zero.json"),
        (ZERO, "seed=1", "ACCELERATE_GRADIENT_CLIPPING=1.0", "gradient_clipping 1.0; what works is auto"),
        (ZERO, "seed=1", "WORLD_SIZE=1", "asks for DeepSpeed with one process"),
    ],
)
def test_what_models_in_parts_cannot_do_is_refused(
    asked: dict[str, str],
    argument: str,
    variable: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    run_command: Command,
    tmp_path: Path,
) -> None:
    name, _, value = variable.partition("=")
    for key, setting in (TWO | asked | {name: value}).items():
        monkeypatch.setenv(key, setting)
    done = run_command(argument, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert why in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "way",
    [
        "fsdp2",
        pytest.param(
            "zero3",
            marks=pytest.mark.skipif(
                find_spec("deepspeed") is None,
                reason="deepspeed is not installed: pip install -c constraints.txt -e '.[deepspeed]'",
            ),
        ),
    ],
)
def test_models_in_parts_end_as_whole_ones(
    way: str, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """A whole run by ``accelerate launch``, its evaluations and the best model at the end included."""
    common = ["method=gkd", *small_arguments, *SHORT, "trainer.load_best_model_at_end=true"]
    launch = ["-m", "accelerate.commands.launch", "--config_file", f"conf/accelerate/{way}.yaml", "run.py"]
    parts = subprocess.run(
        [
            sys.executable,
            *launch,
            *common,
            "trainer.per_device_train_batch_size=2",
            f"output_dir={tmp_path / 'two'}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        cwd=ROOT,
        env=environment(),
    )
    assert parts.returncode == 0, parts.stderr
    done = run_command(*common, f"output_dir={tmp_path / 'one'}", timeout=600)
    assert done.returncode == 0, done.stderr
    one, two = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    ours, theirs = (load_file(run / "student" / "model.safetensors") for run in (two, one))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.allclose(ours[name], weight, atol=2e-4), name
    ours, theirs = read(two, "results.json"), read(one, "results.json")
    for metric, value in theirs["student_after"].items():
        assert ours["student_after"][metric] == pytest.approx(value, rel=1e-3, abs=1e-6), metric
    parameters = [read(run, "cost.json")["parameters"] for run in (two, one)]
    assert parameters[0] == parameters[1]
    assert checkpoints.verify(two / "checkpoints" / "checkpoint-6") == []
