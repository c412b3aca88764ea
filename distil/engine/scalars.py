"""The scalars of a run, one line a logging step, and the clock of its training."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil.system.files import fsync, write_text

logger = logging.getLogger(__name__)

LogScalars = Callable[[dict[str, float], int, float], None]
"""Hands scalars of one step to a tracker, with the seconds since they were measured."""

AXES = ("seconds", "tokens")
"""What training had spent by a step."""

CLOCKS = ("step", "seconds", "cpu_seconds", "validation_seconds")
"""What every line of the log has."""

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
        self._at_checkpoint: dict[str, float] | None = None
        self._began = Spent.now()
        self._ended: Spent | None = None
        self._validated_before = 0.0
        self._told: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the lines up to the step training goes on from."""
        records = [record for record in self._stored() if record["step"] <= state.global_step]
        last = self._at_checkpoint or (records[-1] if records else None)
        if last is not None:
            self._before = Spent(last["seconds"], last["cpu_seconds"])
            self._validated_before = last["validation_seconds"]
        write_text(self.path, "".join(f"{json.dumps(record)}\n" for record in records))
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

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps of the clock: the last line is older, and training went on since."""
        self._sync()  # of steps that are not taken again
        spent = self.spent
        return {
            "seconds": spent.seconds,
            "cpu_seconds": spent.cpu_seconds,
            "validation_seconds": self.validation_seconds,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from what ``state_dict`` gave, when training begins."""
        self._at_checkpoint = state

    def _stored(self) -> list[dict[str, Any]]:
        """The lines of earlier sessions, up to one that cannot be read."""
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        lines, records = text.split("\n"), []
        for number, line in enumerate(filter(None, lines), 1):
            try:
                record = json.loads(line)
                whole = all(isinstance(record[key], (int, float)) for key in CLOCKS)
            except (ValueError, LookupError, TypeError):
                whole = False
            if not whole:
                if line != lines[-1]:  # that is the last of a killed run, which was not written to its end
                    logger.warning(
                        "%s: line %d cannot be read; it and what follows it are left out.", self.path, number
                    )
                break
            records.append(record)
        return records

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock: what follows is evaluation."""
        self._ended = Spent.now()
        self._sync()

    def _sync(self) -> None:
        if self.path.exists():
            fsync(self.path)

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
