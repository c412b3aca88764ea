"""Steps whose loss or gradient is no number: training stops there, or leaves them out and counts them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil.processes import ranks
from distil.run_files import BROKEN_STEPS
from distil.system.files import write_text
from distil.types import RunDiverged

logger = logging.getLogger(__name__)

DIVERGED = 1e3
"""Nats per token that no step of a sound student comes to: to leave out the steps after it helps nobody."""


@dataclass(frozen=True)
class Broken:
    """What one process knows of a broken step."""

    what: str
    """``loss`` or ``gradient``."""
    value: float
    indices: list[int]
    """Training rows, as the trainer numbers them."""
    rollouts: list[list[int]]
    """Prompt and rollout of each, without padding."""

    @classmethod
    def of(cls, broken: tuple[str, float], window: Sequence[dict[str, Any]]) -> Broken:
        """Of micro-batches."""
        indices = [int(i) for batch in window for i in batch["index"]]
        rollouts = [ids for batch in window if "rollout" in batch for ids in _rows_of(batch["rollout"])]
        return cls(*broken, indices, rollouts)


class BrokenSteps(TrainerCallback):
    """Keeps what a broken step was trained on, and decides whether training goes on without it.

    Args:
        most: steps of a run that may be left out; at one more, training stops.
        path: the file of them; None: none is written.
        rows: the number of each training row in its source; None: they are counted from 0.
    """

    def __init__(self, most: int = 0, path: Path | None = None, rows: Sequence[int] | None = None) -> None:
        self.most = most
        self.path = path
        self.rows = rows
        self.skipped = 0
        self.largest_loss = 0.0
        """Of the steps whose loss is a number."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the steps after the one that training goes on from: they will be met again."""
        if self.path is None or not ranks.is_main() or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = "".join(line for line in lines if _step_of(line) <= state.global_step)
        if kept:
            write_text(self.path, kept)
        else:
            self.path.unlink()

    def meet(self, step: int, found: Sequence[Broken]) -> None:
        """Note what is broken in ``step``, in each process that knows of something; count it as left out.

        Raises RunDiverged where no more may be left out.
        """
        # A loss tells which rows; the gradient of all of them is the same.
        found = [each for each in found if each.what == "loss"] or found
        rows = [i if self.rows is None else self.rows[i] for each in found for i in each.indices]
        self._keep(step, found, rows)
        self.skipped += 1
        where = "" if self.path is None else f" ({self.path.name} keeps them)"
        told = f"The {found[0].what} of step {step} is {found[0].value}; training rows {shown(rows)}{where}."
        if self.skipped <= self.most:
            logger.warning(
                "%s The step is left out: %d of at most %d (run.max_skipped_steps).",
                told, self.skipped, self.most,
            )  # fmt: skip
            return
        before = f" Left out before: {self.most}." if self.most else ""
        more = f"; run.max_skipped_steps={max(10, 2 * self.most)} goes on without so many such steps"
        of_a_run = self.path is not None and not ranks.zero()  # DeepSpeed steps before we see the gradient
        if self.largest_loss > DIVERGED:
            before += f" The loss had risen to {self.largest_loss:.3g}."
            of_a_run = False
        raise RunDiverged(
            f"{told}{before} A lower trainer.learning_rate, or a lower trainer.max_grad_norm, may help"
            f"{more if of_a_run else ''}."
        )

    def see(self, loss: float) -> None:
        """Note the loss of a step, be it left out or not: a process's share of it times the processes."""
        self.largest_loss = max(self.largest_loss, loss)

    def _keep(self, step: int, found: Sequence[Broken], rows: Sequence[int]) -> None:
        if self.path is None or not found:
            return
        first = found[0]
        record: dict[str, Any] = {
            "step": step,
            "what": first.what,
            "value": str(first.value),
            "rows": list(rows),
        }
        if rollouts := [ids for each in found for ids in each.rollouts]:
            record["rollouts"] = rollouts
        # A loss that stops the run is known to one process alone; of all else the first writes.
        if (self.most or first.what == "gradient") and not ranks.is_main():
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def notes(self) -> list[str]:
        """What a reader of the results must know."""
        if not self.skipped:
            return []
        steps = "1 step was" if self.skipped == 1 else f"{self.skipped} steps were"
        return [f"{steps} left out of training: loss or gradient were no numbers ({BROKEN_STEPS})."]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"skipped": self.skipped, "largest_loss": self.largest_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from what ``state_dict`` gave."""
        self.skipped, self.largest_loss = state["skipped"], state.get("largest_loss", 0.0)


def shown(rows: Sequence[int], most: int = 16) -> str:
    """Row numbers for a message."""
    return str(list(rows)) if len(rows) <= most else f"{list(rows[:most])} and {len(rows) - most} more"


def _rows_of(batch: dict[str, Any]) -> list[list[int]]:
    """Prompt and rollout of each row, without padding."""
    pairs = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    return [[token for token, real in zip(ids, mask, strict=True) if real] for ids, mask in pairs]


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):  # of a killed run, not written to its end
        return float("inf")
