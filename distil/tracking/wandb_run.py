"""``tracker=wandb``: Weights & Biases, online with a key and a network, else offline in the run directory.

One identity is one run. A run that goes on is handed its earlier scalars again. Online, W&B continues the run
of that id, and steps that it has are left out. Offline, where nobody can be asked, the log begins anew and
holds all sessions: one file to sync, each step once, and none once the run went on online.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from distil.run_files import REPORT, STUDENT
from distil.system.printable import one_line
from distil.system.redact import redact
from distil.tracking.base import UNITS, Tracker, numbers, results_table
from distil.tracking.ending import note_why
from distil.tracking.network import NETWORK_SECONDS, reachable
from distil.types import InputError

if TYPE_CHECKING:
    from distil.config.schema import TrackerConfig

logger = logging.getLogger(__name__)

_Mode = Literal["online", "offline", "disabled", "shared"]

ENDING_SECONDS = 5.0
"""How long W&B's own process may take to end."""
ID_LENGTH = 64
"""The longest run id, and tag, that W&B takes."""


NO_KEY = "no WANDB_API_KEY and no wandb login"
_REFUSED = re.compile(r"\b40[0134]\b|AuthenticationError|permission|not found", re.IGNORECASE)
"""What a server says that answers, and wants another key, entity or project."""


class WandbTracker(Tracker):
    """One W&B run: config, scalars, tables ``samples`` and ``results``, summary, artifacts where asked."""

    def __init__(
        self,
        config: TrackerConfig,
        run_dir: Path,
        run_config: Mapping[str, Any],
        run_name: str,
        identity: str,
    ) -> None:
        # Else it tells its maker about itself, offline too. Who wants that sets it.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb = wandb
        self._config = config
        self._id = identity[-ID_LENGTH:]  # its end tells it from others
        self.mode, why = _wandb_mode()
        plain: dict[str, Any] = redact(dict(run_config))
        try:
            self._run = self._begun(run_dir, plain, run_name)
        except wandb.errors.CommError as error:
            text = one_line(error)
            if self.mode != "online" or _REFUSED.search(f"{type(error).__name__} {text}"):
                raise InputError(_refusal(text)) from error
            logger.warning("W&B does not answer as it should (%s): the run is recorded offline.", text)
            self.mode, why = "offline", "W&B did not answer as it should"
            self.abandon()  # its process still has a run of this name
            self._run = self._begun(run_dir, plain, run_name)
        except wandb.errors.UsageError as error:
            raise InputError(_refusal(one_line(error))) from error
        # Of a run that W&B continues: the first step that it does not have.
        self._first = self._run.starting_step
        self._step = self._first
        if self.mode == "offline":
            logger.info("tracker=wandb records offline (%s): %s", why, self._run.dir)
            if why != NO_KEY and not why.startswith("WANDB_MODE="):
                note_why(self.folder, redact(why))
        elif self.mode == "online":
            logger.info("tracker=wandb: %s", self._run.url)
        self._open = True

    # Any: theirs, imported late.
    def _begun(self, run_dir: Path, plain: dict[str, Any], run_name: str) -> Any:
        """W&B's run, in ``mode``."""
        config = self._config
        if self.mode == "offline":
            self._forget_offline(run_dir)
        run = self._wandb.init(
            project=redact(config.project),
            entity=redact(config.entity),
            group=redact(config.group) or plain.get("name"),
            job_type=redact(config.job_type),
            tags=run_tags(config, plain),
            name=run_name,
            id=self._id,
            # Offline this would say "append to what is there", and the log is whole.
            resume="allow" if self.mode == "online" else None,
            mode=self.mode,
            # W&B's writer may be a process started earlier, elsewhere: a relative path would be lost.
            dir=str(run_dir.absolute()),
            reinit="finish_previous",  # whoever left a run open in this process does not get our scalars
            config=plain | {"units": UNITS},
            settings=self._wandb.Settings(
                console="off",
                # The metadata would hold the command line and the environment word for word.
                x_disable_meta=True,
                disable_git=True,
                save_code=False,
                silent=self.mode == "offline",  # how to sync is said once, at the end
            ),
        )
        if self.mode == "online":  # not before: it may be refused
            self._forget_offline(run_dir)
        return run

    def _forget_offline(self, run_dir: Path) -> None:
        """Remove what earlier sessions recorded offline: this one is handed all of it again."""
        for earlier in (run_dir / "wandb").glob(f"offline-run-*-{glob.escape(self._id)}"):
            shutil.rmtree(earlier)

    @property
    def folder(self) -> Path:
        """Where W&B keeps its own record of the run."""
        return Path(self._run.dir).parent

    def answers(self) -> bool:
        """Whether the server does; offline there is none to wait for."""
        return self.mode != "online" or reachable(self._wandb.setup().settings.base_url)

    def abandon(self) -> None:
        """End W&B's own process, which would try for hours; what it was given lies in ``folder``."""
        import psutil

        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if "wandb" in child.name():
                    child.kill()
                    child.wait(ENDING_SECONDS)
        with suppress(Exception):  # it is gone; a run that follows in this process begins another
            self._wandb.teardown()

    def log(self, scalars: Mapping[str, float], step: int, ago: float = 0.0) -> None:
        """Record scalars of one step, unless W&B has that step."""
        if step < self._first:
            return
        self._step = step
        when = {"_timestamp": time.time() - ago} if ago else {}
        self._run.log({**scalars, **when}, step=step)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record texts as the table ``samples``."""
        if rows:
            columns = list(rows[0])
            self._table("samples", columns, [[row.get(column) for column in columns] for row in rows])

    def summary(self, results: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Record the table ``results``, and its numbers and the costs in the run's summary."""
        self._table("results", *results_table(results))
        self._run.summary.update(numbers(results, cost))

    def files(self, run_dir: Path) -> None:
        """Record the report and the student as artifacts, where the config asks for them."""
        report, student = run_dir / REPORT, run_dir / STUDENT
        if self._config.log_report and report.is_file():
            artifact = self._wandb.Artifact(self._artifact_name("report"), type="report")
            artifact.add_file(str(report))
            self._run.log_artifact(artifact)
        if self._config.log_student and student.is_dir():
            artifact = self._wandb.Artifact(self._artifact_name("student"), type="model")
            artifact.add_dir(str(student), policy="immutable")  # no second copy of its weights
            self._run.log_artifact(artifact)

    def finish(self, exit_code: int = 0) -> None:
        """Close the run with its exit code."""
        if self._open:
            self._open = False
            self._run.finish(exit_code=exit_code)

    def _artifact_name(self, kind: str) -> str:
        return re.sub(r"[^\w.-]", "_", f"{kind}-{self._id}")

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self._wandb.Table(columns=[*columns], data=[[*row] for row in rows], allow_mixed_types=True)
        self._run.log({name: table}, step=self._step)


def _refusal(text: str) -> str:
    return (
        f"tracker=wandb: W&B refuses the run: {text.rstrip('.')}. Look at WANDB_API_KEY, tracker.entity and "
        "tracker.project, or record offline with WANDB_MODE=offline."
    )


def run_tags(config: TrackerConfig, plain: Mapping[str, Any]) -> list[str]:
    """What runs are found by: method, model and peft as the command line says them, and the user's own."""
    chosen = [f"{group}={plain[group]['name']}" for group in ("method", "model", "peft") if group in plain]
    return [tag[:ID_LENGTH] for tag in dict.fromkeys([*chosen, *redact(config.tags)])]


def _wandb_mode() -> tuple[_Mode, str]:
    """How W&B is to run, and why not online. The user's WANDB_MODE wins."""
    import wandb

    asked = os.environ.get("WANDB_MODE")
    for mode in get_args(_Mode):
        if asked == mode:
            return mode, f"WANDB_MODE={asked}"
    if not os.environ.get("WANDB_API_KEY") and not wandb.login(prompt=False, verify=False):
        return "offline", NO_KEY
    server = wandb.setup().settings.base_url
    if not reachable(server):
        return "offline", f"no answer from {server} within {NETWORK_SECONDS:g} s"
    return "online", ""
