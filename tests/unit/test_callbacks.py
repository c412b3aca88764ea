"""What watches training: a log that goes on where it stopped, and a clock that stops with training."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil.engine import callbacks
from distil.engine.callbacks import FirstCheckpoint, InterruptGuard, ProgressBar
from distil.engine.scalars import MetricsLog
from distil.system import progress
from distil.system.progress import Progress
from tests.training import Setup, build_method


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)


def test_seconds_are_those_of_training(arguments: TrainingArguments, tmp_path: Path) -> None:
    """Evaluating comes after the end, and earlier sessions count."""
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

    first = session(None, 4).spent
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


class Time:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def trained(
    bar: ProgressBar, clock: Time, arguments: TrainingArguments, steps: int, seconds: float, first: int = 0
) -> None:
    """What a trainer tells ``bar`` in ``steps`` steps of ``seconds``, with a loss at every tenth."""
    control, state = TrainerControl(), TrainerState(global_step=first, max_steps=steps)
    bar.on_train_begin(arguments, state, control)
    for step in range(first + 1, steps + 1):
        clock.now += seconds
        state.global_step = step
        bar.on_step_end(arguments, state, control)
        if step % 10 == 0:
            bar.on_log(arguments, state, control, logs={"loss": 1.0 / step})
    bar.on_train_end(arguments, state, control)


def test_where_nothing_moves_a_plain_line_now_and_then(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Step, loss, pace, time left; more seldom as it goes on; no control characters; in the log as well."""
    clock, shown = Time(monkeypatch), io.StringIO()
    with (
        caplog.at_level(logging.INFO),
        ProgressBar(Progress(Console(file=shown)), lambda: int(clock.now)) as bar,
    ):
        trained(bar, clock, arguments, steps=400, seconds=1.0)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "training: step 10 of 400, 1 tokens/s, about 6 min 30 s left"
    assert lines[1] == "training: step 20 of 400, loss 0.1000 at step 10, 1 tokens/s, about 6 min 20 s left"
    assert lines[-1] == "training: step 400 of 400, loss 0.0025, 1 tokens/s"
    steps = [int(line.split()[2]) for line in lines]
    apart = [b - a for a, b in pairwise(steps)][:-1]
    assert apart == sorted(apart)
    assert apart[0] == 10
    assert 30 <= apart[-1] <= 45
    assert shown.getvalue().replace("\n", "").isprintable()
    assert [record.getMessage() for record in caplog.records] == lines


def test_in_a_terminal_the_lines_are_for_the_log_alone(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Time(monkeypatch)
    shown = Console(file=io.StringIO(), force_terminal=True, width=100)
    with caplog.at_level(logging.INFO), ProgressBar(Progress(shown), lambda: 0) as bar:
        trained(bar, clock, arguments, steps=30, seconds=1.0)
    assert [record.getMessage()[:23] for record in caplog.records] == [
        "training: step 10 of 30",
        "training: step 20 of 30",
        "training: step 30 of 30",
    ]
    assert "training: step" not in shown.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_a_short_training_is_a_line_of_the_log_with_its_loss(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, shown = Time(monkeypatch), io.StringIO()
    with caplog.at_level(logging.INFO), ProgressBar(Progress(Console(file=shown)), lambda: 0) as bar:
        trained(bar, clock, arguments, steps=10, seconds=0.5)
    assert shown.getvalue() == ""
    assert [record.getMessage() for record in caplog.records] == [
        "training: step 10 of 10, loss 0.1000, 0 tokens/s"
    ]


def test_time_left_of_a_run_that_goes_on_is_of_what_it_does_itself(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, shown = Time(monkeypatch), io.StringIO()
    with ProgressBar(Progress(Console(file=shown)), lambda: 0) as bar:
        trained(bar, clock, arguments, steps=140, seconds=1.0, first=100)
    assert shown.getvalue().startswith("training: step 110 of 140, 0 tokens/s, about 30 s left\n")


def test_evaluating_says_how_far_it_is_where_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = Time(monkeypatch), io.StringIO()
    with Progress(Console(file=shown)).bar("evaluating the teacher") as report:
        for done in range(1, 41):
            clock.now += 1
            report(done, 40)
    first, *_ = shown.getvalue().splitlines()
    assert first == "evaluating the teacher: 10 of 40, about 30 s left"
    assert progress.SOONEST == 10


def test_what_has_nothing_done_for_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of generation may take minutes: nothing of it is done until all is."""
    monkeypatch.setattr(progress, "SOONEST", 0.05)
    shown = io.StringIO()
    with Progress(Console(file=shown)).bar("evaluating the teacher"):
        until = time.monotonic() + 10
        while not shown.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert shown.getvalue() == "evaluating the teacher …\n"
    monkeypatch.setattr(progress, "SOONEST", 0.2)
    with Progress(Console(file=shown)).bar("evaluating the student") as report:
        report(4, 4)
    time.sleep(0.4)
    assert shown.getvalue() == "evaluating the teacher …\n", "what is over is not named"


def test_what_stands_still_after_a_line_is_named_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as long after the last word of anybody: steps that are slow, a batch that is."""
    monkeypatch.setattr(progress, "SOONEST", 0.05)
    shown = io.StringIO()
    waits = Progress(Console(file=shown))
    with waits.named("training"):
        waits.note("training: step 1 of 2")
        until = time.monotonic() + 20
        while shown.getvalue().count("training …") < 2 and time.monotonic() < until:
            time.sleep(0.01)
    assert shown.getvalue().startswith("training: step 1 of 2\ntraining …\ntraining … (0.")


def test_short_waits_in_a_row_are_no_long_one_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them takes SOONEST, all of them together do."""
    monkeypatch.setattr(progress, "SOONEST", 60.0)
    clock, shown = Time(monkeypatch), io.StringIO()
    waits = Progress(Console(file=shown))
    for label in ("loading", "evaluating the teacher", "evaluating the student"):
        with waits.spinner(label):
            until = time.time() + (0 if clock.now < waits.told + 60 else 10)
            while not shown.getvalue() and time.time() < until:
                time.sleep(0.01)
            clock.now += 35
    assert shown.getvalue() == "evaluating the student …\n"


def test_lines_that_stay_are_said_where_no_bar_is_shown() -> None:
    """Jobs side by side: whoever waits for another says so, where the sweep reads its lines."""
    shown, said = io.StringIO(), list[str]()
    quiet = Progress(Console(file=shown, quiet=True), said.append)
    quiet.say("in use by another: waiting")
    quiet.note("evaluating: 10 of 40")
    assert (said, shown.getvalue()) == (["in use by another: waiting"], "")


@pytest.mark.parametrize(
    ("strategy", "seconds_a_step", "first", "an_epoch", "told"),
    [
        ("steps", 5.0, 0, 250, "The first checkpoint comes after step 500, in about 40 min 40 s"),
        ("epoch", 100.0, 0, 250, "The first checkpoint comes after step 250, in about 6 h 55 min"),
        ("epoch", 100.0, 0, 249.75, "The first checkpoint comes after step 250, in about 6 h 55 min"),
        ("epoch", 100.0, 0, 10_000, "The first checkpoint comes after step 1,000, in about "),
        ("steps", 1.0, 0, 250, ""),
        ("steps", 5.0, 3, 250, ""),
        ("no", 5.0, 0, 250, ""),
    ],
)
def test_a_first_checkpoint_that_is_far_is_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    seconds_a_step: float,
    first: int,
    an_epoch: float,
    told: str,
) -> None:
    """By the clock, so that no short run is told anything; where ``max_steps`` is set, number of epochs says
    nothing."""
    arguments = TrainingArguments(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, save_strategy=strategy, num_train_epochs=4
    )
    clock, said = Time(monkeypatch), list[str]()
    watch, control = FirstCheckpoint(said.append), TrainerControl()
    state = TrainerState(global_step=first, max_steps=1000, save_steps=500)
    watch.on_train_begin(arguments, state, control)
    for step in range(first + 1, 41):
        clock.now += seconds_a_step
        state.global_step, state.epoch = step, step / an_epoch
        watch.on_step_end(arguments, state, control)
    assert [line[: len(told)] for line in said] == ([told] if told else [])
    if told:
        assert f"trainer.save_steps={round(callbacks.FAR / seconds_a_step)}." in said[0]


def test_the_last_step_is_logged_whatever_logging_steps_says(tmp_path: Path) -> None:
    """No run ends without a loss; nothing is logged twice; ``no`` stays no."""
    logged = {}
    for strategy, steps in (("steps", 100), ("steps", 3), ("epoch", 100), ("no", 100)):
        keys = {"logging_strategy": strategy, "logging_steps": steps}
        trainer = Setup(build_method("sft"), tmp_path, steps=6, batch=8, arguments=keys).trainer()
        trainer.train()
        logged[strategy, steps] = [e["step"] for e in trainer.state.log_history if "loss" in e]
    assert logged == {("steps", 100): [6], ("steps", 3): [3, 6], ("epoch", 100): [3, 6], ("no", 100): []}
