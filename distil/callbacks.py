"""What watches training: the scalar log, the progress bar, the user's Ctrl-C."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil.files import write_text
from distil.ranks import any_of, is_main, world_size

logger = logging.getLogger(__name__)

LogScalars = Callable[[dict[str, float], int, float], None]
"""Hands scalars of one step to a tracker, with the seconds since they were measured."""

AXES = ("seconds", "tokens")
"""What training had spent by a step."""

END_OF_TRAINING = "train_runtime"
"""Trainer's own closing record carries this key; it holds costs, which go to cost.json and run.log."""


def scalar_names(logs: dict[str, float]) -> dict[str, float]:
    """Trainer's keys under our names: ``train/…`` and ``validation/…``, per-token values named as such."""
    named = {}
    for key, value in logs.items():
        if key in ("epoch", "eval_loss", "step") or not isinstance(value, (int, float)):
            continue
        named[f"validation/{key[5:]}" if key.startswith("eval_") else f"train/{key}"] = float(value)
    return named


@dataclass(frozen=True)
class Spent:
    """Time: by the clock, and of this process's processors (all threads), which other work leaves alone."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)

    @classmethod
    def now(cls) -> Spent:
        """Up to now, from some beginning."""
        return cls(time.monotonic(), time.process_time())


NOTHING = Spent(0.0, 0.0)


class AtCheckpoint(TrainerCallback):
    """Calls back after each checkpoint: what must be known to whoever goes on from it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A checkpoint was written."""
        self.call()


class MetricsLog(TrainerCallback):
    """Writes ``metrics.jsonl``, one line a logging step, and hands the same scalars to the tracker.

    A resumed run cuts the file back to its checkpoint's step, so that no step stands in it twice, and hands
    the tracker the lines that are left: those of its earlier sessions. Its clock stands still while the
    student is evaluated: ``seconds`` and ``cpu_seconds`` are those of training alone.
    """

    def __init__(self, path: Path, log_scalars: LogScalars, tokens: Callable[[], int]) -> None:
        self.path = path
        self.log_scalars = log_scalars
        self.tokens = tokens
        self._before, self._evaluated = NOTHING, NOTHING
        self._began = Spent.now()
        self._ended: Spent | None = None
        self._validated_before = 0.0
        self._told: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the lines up to the step training goes on from."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = []
        records = []
        for line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # the last line of a killed run
                break
            if record["step"] <= state.global_step:
                kept.append(line)
                records.append(record)
                self._before = Spent(record["seconds"], record["cpu_seconds"])
                self._validated_before = record["validation_seconds"]
        write_text(self.path, "".join(f"{line}\n" for line in kept))
        for record in records:
            self._tell(record, self._before.seconds - record["seconds"])
        self._began, self._ended, self._evaluated = Spent.now(), None, NOTHING

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside: an evaluation on the way is no training."""
        began = Spent.now()
        try:
            yield
        finally:
            self._evaluated += Spent.now() - began

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock: what follows is judgement."""
        self._ended = Spent.now()

    @property
    def spent(self) -> Spent:
        """What training took, sessions before a resume included."""
        return self._before + (self._ended or Spent.now()) - self._began - self._evaluated

    @property
    def validation_seconds(self) -> float:
        """What the evaluations on the way took, sessions before a resume included."""
        return self._validated_before + self._evaluated.seconds

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line."""
        if not logs:
            return
        if END_OF_TRAINING in logs:
            logger.info("Trainer's own account: %s", json.dumps(logs))
            return
        scalars = scalar_names(logs)
        spent = self.spent
        record = {
            "step": state.global_step,
            "seconds": round(spent.seconds, 3),
            "cpu_seconds": round(spent.cpu_seconds, 3),
            "validation_seconds": round(self.validation_seconds, 3),
            "tokens": self.tokens(),
            **scalars,
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._tell(record, 0.0)

    def _tell(self, record: dict[str, Any], ago: float) -> None:
        """Hand one line of the file to the tracker; seconds and tokens are axes to draw the others over."""
        scalars = {key: value for key, value in record.items() if "/" in key}
        if record["step"] != self._told:  # else its training and its validation would each bring them
            scalars |= {f"train/{axis}": record[axis] for axis in AXES if axis in record}
        self._told = record["step"]
        self.log_scalars(scalars, record["step"], ago)


class ProgressBar(TrainerCallback):
    """Steps, loss, tokens a second and time left; nothing where the output is not a terminal."""

    def __init__(self, console: Console, tokens: Callable[[], int]) -> None:
        self.tokens = tokens
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task: TaskID | None = None
        self.began = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar where training goes on."""
        self.progress.start()
        self.task = self.progress.add_task(
            "training", total=state.max_steps, completed=state.global_step, rate="", loss=""
        )
        self.began = (time.monotonic(), self.tokens())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One step further."""
        if self.task is not None:
            seconds, tokens = time.monotonic() - self.began[0], self.tokens() - self.began[1]
            rate = f"{tokens / max(seconds, 1e-9):,.0f} tokens/s"
            self.progress.update(self.task, completed=state.global_step, rate=rate)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the newest loss."""
        if self.task is not None and logs and "loss" in logs:
            self.progress.update(self.task, loss=f"loss {logs['loss']:.4f}")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_error: object) -> None:
        self.progress.stop()  # also after a failure


class InterruptGuard(TrainerCallback):
    """Ctrl-C once: finish the step, save, stop. Twice: stop at once. As a context manager it owns SIGINT.

    Of several processes all stop after the same step; torchrun hands its own SIGTERM on to them, too.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptGuard:
        heard = (signal.SIGINT,) if world_size() == 1 else (signal.SIGINT, signal.SIGTERM)
        self._before = {one: signal.signal(one, self._ask) for one in heard}
        return self

    def __exit__(self, *_error: object) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)

    def _ask(self, heard: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if heard == signal.SIGINT and is_main():
            again = " Ctrl-C again stops at once." if world_size() == 1 else ""
            print(f"\nStopping after this step, with a checkpoint.{again}", file=sys.stderr)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn the wish into a save and a stop."""
        if any_of(self.asked):
            self.asked = True
            control.should_save = True
            control.should_training_stop = True
