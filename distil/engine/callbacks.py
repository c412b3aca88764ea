"""What watches training: how far it is, the checkpoints, the user's Ctrl-C."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from distil.processes.ranks import any_of, is_main, world_size
from distil.system import stopping
from distil.system.progress import Lines, Progress
from distil.system.units import duration

FAR = 1800.0
"""Seconds to the first checkpoint from which on it is worth a word."""
SURE = 60.0
"""Seconds of training after which it is known how long that is."""


class AtCheckpoint(TrainerCallback):
    """Calls back after each checkpoint: what must be known to whoever goes on from it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A checkpoint was written."""
        self.call()


class FirstCheckpoint(TrainerCallback):
    """Says once, where the first checkpoint is far, that a run which is killed before begins again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.settled = False
        self.began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A run that goes on has one already."""
        self.began, self.settled = time.monotonic(), state.global_step > 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look once, when it is known what a step takes."""
        seconds = time.monotonic() - self.began
        if self.settled or seconds < SURE:
            return
        self.settled = True
        a_step = seconds / state.global_step
        first = _first_checkpoint(args, state)
        if first is not None and first * a_step - seconds > FAR:
            self.say(
                f"The first checkpoint comes after step {first:,}, in about "
                f"{duration(first * a_step - seconds)}: killed before (Ctrl-C and SIGTERM save one), the run "
                f"begins again. One every half hour: trainer.save_strategy=steps "
                f"trainer.save_steps={max(1, round(FAR / a_step))}."
            )


def _first_checkpoint(args: TrainingArguments, state: TrainerState) -> int | None:
    """After which step it is written; None where none is, or nobody can say."""
    if args.save_strategy == SaveStrategy.STEPS:
        return min(int(state.save_steps), state.max_steps)
    if args.save_strategy == SaveStrategy.EPOCH:
        if not state.epoch:
            return None
        steps = math.ceil(state.global_step / state.epoch - 1e-6)  # in one epoch; less what rounding adds
        return min(steps, state.max_steps)
    return None


class ProgressBar(TrainerCallback):
    """Steps, loss, tokens a second and time left: a bar in a terminal; elsewhere, and in the log, plain
    lines."""

    def __init__(self, progress: Progress, tokens: Callable[[], int]) -> None:
        self.tokens = tokens
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=progress.console,
            disable=not progress.moves,
            transient=True,
        )
        self.progress = progress
        self.open = ExitStack()
        self.task: TaskID | None = None
        self.began = (0.0, 0)
        self.loss = ""
        self.logged = 0
        """The step the newest loss is of."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start where training goes on."""
        self.open.enter_context(self.progress.named("training"))
        self.bar.start()
        self.task = self.bar.add_task(
            "training", total=state.max_steps, completed=state.global_step, rate="", loss=""
        )
        self.lines = Lines(self.progress.note, "training: step", state.global_step)
        self.began = (time.monotonic(), self.tokens())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One step further."""
        if self.task is not None:
            self.bar.update(self.task, completed=state.global_step, rate=self._rate())
            self.lines.at(state.global_step, state.max_steps, (self._loss(state), self._rate()))

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
            self.loss, self.logged = f"loss {logs['loss']:.4f}", state.global_step
            self.bar.update(self.task, loss=self.loss)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """How far it came, and its last loss."""
        self.lines.end(state.global_step, state.max_steps, (self._loss(state), self._rate()))

    def _loss(self, state: TrainerState) -> str:
        """The newest loss: that of this step, or the step it was logged at with it."""
        return self.loss if self.logged in (0, state.global_step) else f"{self.loss} at step {self.logged:,}"

    def _rate(self) -> str:
        seconds, tokens = time.monotonic() - self.began[0], self.tokens() - self.began[1]
        return f"{tokens / max(seconds, 1e-9):,.0f} tokens/s"

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_error: object) -> None:
        self.open.close()
        self.bar.stop()  # also after a failure


class InterruptGuard(TrainerCallback):
    """Ctrl-C once: finish the step, save, stop. Twice: stop at once. As a context manager it owns SIGINT.

    What ``stopping`` hears is put off in the same way. Of several processes all stop after the same step;
    torchrun hands its own SIGTERM on to them, too.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}
        self._deferred = ExitStack()

    @property
    def asked(self) -> bool:
        """Whether training is to stop."""
        return self._asked or stopping.wanted()

    def __enter__(self) -> InterruptGuard:
        heard = (signal.SIGINT,) if world_size() == 1 else (signal.SIGINT, signal.SIGTERM)
        self._before = {one: signal.signal(one, self._ask) for one in heard}
        self._deferred.enter_context(stopping.deferred())
        return self

    def __exit__(self, *_error: object) -> None:
        self._deferred.close()
        for one, before in self._before.items():
            signal.signal(one, before)

    def _ask(self, heard: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        if heard == signal.SIGINT and is_main():
            again = " Ctrl-C again stops at once." if world_size() == 1 else ""
            print(f"\nStopping after this step, with a checkpoint.{again}", file=sys.stderr)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn the wish into a save and a stop."""
        if any_of(self.asked):
            self._asked = True
            control.should_save = True
            control.should_training_stop = True
