"""What watches training: a log that goes on where it stopped, and a clock that stops with training."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil.callbacks import InterruptGuard
from distil.scalars import MetricsLog
from tests.training import Setup, build_method


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)


def test_seconds_are_those_of_training(arguments: TrainingArguments, tmp_path: Path) -> None:
    """Judging comes after the end, and earlier sessions count."""
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": s, "seconds": 100.0 * s, "cpu_seconds": 50.0 * s, "validation_seconds": 7.0 * s}
        for s in (1, 9)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    log = MetricsLog(path, lambda scalars, step, ago: None, lambda: 0)
    state, control = TrainerState(global_step=1), TrainerControl()
    log.on_train_begin(arguments, state, control)
    log.on_train_end(arguments, state, control)
    spent = log.spent
    assert 100 <= spent.seconds < 101
    assert 50 <= spent.cpu_seconds < 51
    assert log.validation_seconds == 7
    time.sleep(0.01)
    assert log.spent == spent
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1, "the step after the checkpoint is gone"


def test_the_clock_stands_still_in_an_evaluation(arguments: TrainingArguments, tmp_path: Path) -> None:
    """Curves by seconds too: what an evaluation took is no training, and is told beside it."""
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, lambda scalars, step, ago: None, lambda: 0)
    state, control = TrainerState(global_step=1), TrainerControl()
    began = time.monotonic()
    log.on_train_begin(arguments, state, control)
    for name in ("loss", "eval_nll_per_token"):
        with log.paused():
            time.sleep(0.1)
        with suppress(RuntimeError), log.paused():
            time.sleep(0.1)
            raise RuntimeError
        time.sleep(0.02)
        log.on_log(arguments, state, control, logs={name: 0.5})
    log.on_train_end(arguments, state, control)
    took = time.monotonic() - began
    assert 0.03 <= log.spent.seconds <= took - 0.39
    assert 0.39 <= log.validation_seconds <= took - 0.03
    first, second = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert 0.01 <= first["seconds"] <= second["seconds"] - 0.01
    assert 0.19 <= first["validation_seconds"] <= second["validation_seconds"] - 0.19


@pytest.mark.parametrize("logging_steps", [1, 20])
def test_the_clock_goes_on_from_the_checkpoint_not_from_the_last_line(
    tmp_path: Path, logging_steps: int
) -> None:
    """Killed right after a checkpoint that no line was written at: a resumed run is not cheaper."""

    class Work(TrainerCallback):
        def on_train_begin(self, _: object, state: TrainerState, *__: object, **___: object) -> None:
            time.sleep(0 if state.global_step else 1)

    def session(resume: Path | None, steps: int) -> MetricsLog:
        arguments = {"save_strategy": "steps", "save_steps": 3, "logging_steps": logging_steps}
        trainer = Setup(build_method("sft"), tmp_path, steps=steps, arguments=arguments).trainer()
        log = MetricsLog(tmp_path / "metrics.jsonl", lambda scalars, step, ago: None, lambda: 0)
        trainer.kept["clock"] = log
        trainer.add_callback(log)
        trainer.add_callback(Work())
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        return log

    first = session(None, 3).spent
    resumed = session(tmp_path / "checkpoint-3", 4).spent
    kept = json.loads((tmp_path / "checkpoint-3" / "method_state.json").read_text(encoding="utf-8"))["clock"]
    assert 1 <= kept["seconds"] <= first.seconds
    assert kept["seconds"] < resumed.seconds
    assert 0 < kept["cpu_seconds"] < resumed.cpu_seconds


def test_a_killed_runs_last_line_is_cut(arguments: TrainingArguments, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 1, "seconds": 1.0, "cpu_seconds": 1.0, "validation_seconds": 0.0}'
    path.write_text(whole + '\n{"step": 2, "sec', encoding="utf-8")
    log = MetricsLog(path, lambda scalars, step, ago: None, lambda: 7)
    state, control = TrainerState(global_step=2), TrainerControl()
    log.on_train_begin(arguments, state, control)
    log.on_log(arguments, state, control, logs={"loss": 0.5})
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert (lines[1]["tokens"], lines[1]["train/loss"]) == (7, 0.5)


@pytest.mark.parametrize("bad", ["garbage", "[1]", '{"step": 2}', '{"step": "2"}', "null", "\udcff\udc80"])
def test_a_line_that_cannot_be_read_is_said_and_ends_what_is_kept(
    arguments: TrainingArguments, tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{{"step": {}, "seconds": 2.5, "cpu_seconds": 1.0, "validation_seconds": 0.5}}\n'
    text = good.format(1) + bad + "\n" + good.format(3)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    log = MetricsLog(path, lambda scalars, step, ago: None, lambda: 0)
    log.on_train_begin(arguments, TrainerState(global_step=3), TrainerControl())
    assert path.read_text(encoding="utf-8") == good.format(1)
    assert log.spent.seconds >= 2.5
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: line 2 cannot be read; it and what follows it are left out."
    ]


@pytest.mark.parametrize("step", [3, 10])
def test_ctrl_c_saves_and_stops_in_the_last_step_too(arguments: TrainingArguments, step: int) -> None:
    """Once: after this step, with a checkpoint. Twice: at once."""
    with InterruptGuard() as guard:
        os.kill(os.getpid(), signal.SIGINT)
        control = TrainerControl()
        guard.on_step_end(arguments, TrainerState(global_step=step, max_steps=10), control)
        assert control.should_save
        assert control.should_training_stop
        assert guard.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
