"""``tracker=tensorboard``: event files in the run directory, for those without an account."""

from __future__ import annotations

import html
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distil.effect import leaves
from distil.system.redact import redact
from distil.tracking.base import Tracker, numbers, results_table

NAMES = ("method", "model", "peft", "data")
"""Groups whose chosen option is a hyperparameter under the group's own name, as on the command line."""

TRAINER = (
    "learning_rate",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
"""Fields of the trainer that runs are compared by. All others are in the text ``config``."""

_MARKDOWN = re.compile(r"[\\`*_{}\[\]()!|~]")
"""What TensorBoard reads as emphasis, code, links and pictures: those would be fetched."""


class TensorBoardTracker(Tracker):
    """Event files in ``<run>/tensorboard``, begun anew by each session of a run."""

    def __init__(self, run_dir: Path, run_config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run_dir / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        plain = redact(dict(run_config))
        self._hyperparameters = hyperparameters(plain)
        self._step = 0
        self._open = True
        self._hook, threading.excepthook = threading.excepthook, self._died
        try:
            self._writer = SummaryWriter(str(folder))
            self._writer.add_text("config", f"```yaml\n{yaml.safe_dump(plain, sort_keys=False)}```")
        except BaseException:
            threading.excepthook = self._hook
            raise

    def log(self, scalars: Mapping[str, float], step: int, ago: float = 0.0) -> None:
        """Record scalars of one step."""
        self._step = step
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step, walltime=time.time() - ago)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record texts as a Markdown table, one row a sample."""
        if rows:
            columns = list(rows[0])
            self._table("samples", columns, [[row.get(column) for column in columns] for row in rows])

    def summary(self, results: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Record the results table, and the final numbers beside the hyperparameters."""
        self._table("results", *results_table(results))
        final = {f"result/{name}": value for name, value in numbers(results, cost).items()}
        # ".": in the run's own folder, else the HParams tab shows a run below each run.
        self._writer.add_hparams(self._hyperparameters, final, run_name=".", global_step=self._step)

    def finish(self, exit_code: int = 0) -> None:
        """Record the exit code and close the files."""
        if self._open:
            self._open = False
            try:
                self._writer.add_scalar("run/exit_code", exit_code, self._step)
                self._writer.close()
            finally:
                if threading.excepthook == self._died:
                    threading.excepthook = self._hook

    def _died(self, told: threading.ExceptHookArgs) -> None:
        """A full disk ends TensorBoard's thread; the next call raises what it died of, so no traceback."""
        if not type(told.thread).__module__.startswith("tensorboard."):
            self._hook(told)

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        self._writer.add_text(name, text, self._step)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """What the HParams tab shows of a run, by the key that sets it: ``method``, ``method.temperature`` …"""
    chosen: dict[str, Any] = {"seed": config.get("seed")}
    for group in NAMES:
        chosen[group] = (config.get(group) or {}).get("name")
    for group in ("method", "peft"):
        below = {key: value for key, value in (config.get(group) or {}).items() if key != "name"}
        chosen |= leaves(below, group) if below else {}
    trainer = config.get("trainer") or {}
    chosen |= {f"trainer.{key}": trainer[key] for key in TRAINER if key in trainer}
    return {key: _plain(value) for key, value in chosen.items() if value not in (None, {})}


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _cell(value: Any) -> str:
    """One cell of a Markdown table: text is shown, never taken as markup."""
    text = "" if value is None else str(value)
    escaped = _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", html.escape(text, quote=False))
    return escaped.replace("\n", "<br>")
