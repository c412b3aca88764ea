"""What watches training: the progress bar, the checkpoints, the user's Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil import stopping
from distil.ranks import any_of, is_main, world_size


class AtCheckpoint(TrainerCallback):
    """Calls back after each checkpoint: what must be known to whoever goes on from it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A checkpoint was written."""
        self.call()


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
