"""One run: from a typed config to a run directory that anyone can read.

Everything that can be refused is refused before a model loads; everything that was computed stays on disk.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from distil.adapters.base import adapter_of
from distil.changed import unfinished_beside
from distil.config.processes import check_processes
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.config.tuned import Tuned
from distil.engine.checkpoints import changes
from distil.methods.base import Method, method_of
from distil.preflight import fingerprints, ignored_keys, locate
from distil.processes import ranks
from distil.report.html import write_report
from distil.report.run_directory import read_run
from distil.report.seal import SMALL
from distil.report.terminal import print_summary
from distil.run_files import CONFIG, ENVIRONMENT, LOG, STATUS, status_of
from distil.run_log import log_file
from distil.status import kept_status, told_how_to_go_on
from distil.system import environment
from distil.system.files import fsync, unwritable, write_json, write_text
from distil.system.limits import RUN, check_addresses
from distil.system.locks import alone
from distil.system.offline import network
from distil.system.printable import printable
from distil.system.progress import Progress
from distil.system.redact import redact
from distil.tracking import NoTracker, Tracker, how_to_see, start_tracker

logger = logging.getLogger(__name__)

DDP_TIMEOUT = 1800
"""Seconds, as transformers has it."""


@dataclass(frozen=True)
class _Shown:
    """What the person at the terminal is shown of a run."""

    summary: bool
    said_at_end: bool
    """Whether a summary or a comparison says what came out."""
    progress: Progress


@dataclass(frozen=True)
class _Asked:
    """One run as it was asked for."""

    config: ExperimentConfig
    command: str
    """Without secrets."""
    name: str
    """Its identity."""
    folder: Path
    tuned: Sequence[Tuned]


def tell(line: str) -> None:
    """Print ``line`` for the person at the terminal, beside results."""
    print(printable(line), file=sys.stderr, flush=True)


def run(
    config: ExperimentConfig,
    *,
    command: str,
    summary: bool = True,
    say: Callable[[str], None] = tell,
    tuned: Sequence[Tuned] = (),
    watched: bool = True,
    compared: bool = False,
) -> Path:
    """Run ``config`` to its end and return its run directory; a run that is done is only shown.

    Where another command is at that run, it is waited for. Of the processes that ``torchrun`` starts, the
    first writes the directory, and alone says what went wrong.

    Args:
        config: of the run.
        command: what starts it again.
        summary: whether to print at the end what came out.
        say: takes a line of who is waited for; of one that is not ``watched``, all lines that stay.
        tuned: the files of tuned keys that ``config`` was composed with.
        watched: whether to show how far it is; not of runs side by side, whose lines would mix.
        compared: whether a comparison follows, which says what came out.

    Raises InputError before anything expensive, RunFailed and RunInterrupted with all that was computed kept.
    """
    check_processes(config)
    patience = config.trainer.arguments().get("ddp_timeout", DDP_TIMEOUT)
    with network(config.run.allow_network), ExitStack() as held, ranks.joined(patience):
        name, folder, done = ranks.from_main(lambda: _located(config, held, say))
        if ranks.is_main():
            progress = Progress(Console(stderr=True, quiet=not watched), None if watched else say)
            shown = _Shown(summary, summary or compared, progress)
            _run_first(_Asked(config, redact(command), name, Path(folder), tuned), shown)
        elif not done:
            _run_beside(config, Path(folder), command)
    return Path(folder)


def _located(config: ExperimentConfig, held: ExitStack, say: Callable[[str], None]) -> tuple[str, str, bool]:
    """Identity, folder, whether it is done; if not, the folder is this process's for as long as ``held``."""
    name, folder = locate(config)
    if status_of(folder) != "done":
        try:
            held.enter_context(alone(folder, say))
        except OSError as error:
            raise unwritable("output_dir", config.output_dir, error, (folder / STATUS).exists()) from error
    return name, str(folder), status_of(folder) == "done"


def _run_beside(config: ExperimentConfig, folder: Path, command: str) -> None:
    """The part of any process but the first: it trains, writes nothing, and is not heard."""
    logging.disable()
    warnings.simplefilter("ignore")
    from distil.stages import run_stages

    environment.use_threads(config.run.threads)
    run_stages(config, method_of(config.method), folder, NoTracker(), Progress(Console(quiet=True)), command)


def _run_first(asked: _Asked, shown: _Shown) -> None:
    """The whole of a run, in the first process or the only one."""
    folder, resumes = asked.folder, asked.config.run.resume
    console = Console(quiet=not shown.summary)
    if status_of(folder) == "done":
        console.print(
            f"Done before: {folder}. To run it again in a new folder: run.rerun=true.\n",
            highlight=False, markup=False,
        )  # fmt: skip
        for problem in changes(folder, largest=SMALL):  # `distil doctor` reads every byte of a large student
            tell(f"warning: {folder}: {problem} since the run was done. run.rerun=true runs it again.")
        print_summary(read_run(folder), console)
        return
    if shown.summary:  # of a sweep the line of the job has said it; what comes next imports torch
        again = "goes on" if resumes else "begins afresh"
        begins = "begins" if status_of(folder) is None else again
        tell(f"Run {folder} {begins}: libraries, models and data load first.")
    with told_how_to_go_on(folder, asked.command, resumes):
        _attempt(asked, shown)
    print_summary(read_run(folder), console)
    for line in how_to_see([folder]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _attempt(asked: _Asked, shown: _Shown) -> None:
    """The stages of a run that is not done, with its status, its log and its report kept."""
    config, folder, command = asked.config, asked.folder, asked.command
    check_addresses(RUN, "a run")
    method = method_of(config.method)
    environment.use_threads(config.run.threads)
    fresh = status_of(folder) is None
    made_by = _open_folder(asked, method)
    if shown.summary and fresh and (line := unfinished_beside(folder)):
        tell(line)
    with _reported(folder), log_file(folder / LOG, said_at_end=shown.said_at_end):
        logger.info("%s %s", "Begins:" if fresh else "Begins again:", _who_and_what(made_by))
        if line := adapter_of(config.peft).odd_rate(config.trainer.learning_rate):
            logger.warning(line, extra={"said_once": True})
        with (
            kept_status(folder, asked.name, command, config.run.resume, config.trainer.with_less_memory()),
            ExitStack() as started,
            ranks.one_failure(),
        ):
            from distil.stages import run_stages

            plain = _without_secrets(config)
            tracker = start_tracker(config.tracker, folder, plain, folder.name, folder.name)
            started.enter_context(tracker)
            run_stages(config, method, folder, tracker, shown.progress, command)
            started.pop_all()  # it stays open: the report that it may keep is that of a run that is done
        with tracker:
            _keep_files(tracker, folder)


def _who_and_what(made_by: Mapping[str, Any]) -> str:
    """Code, process and command of a session, for the log; ``made_by``: what ``environment.json`` holds."""
    git = made_by["git"]
    changed = " and uncommitted changes" if git["dirty"] else ""
    revision = f", git {git['revision'][:12]}{changed}" if git["revision"] else ""
    where = f"process {os.getpid()} on {socket.gethostname()}, {made_by['device']}"
    return f"distil-runner {made_by['code']}{revision}; {where}: {made_by['command']}"


def _keep_files(tracker: Tracker, folder: Path) -> None:
    """Hand the tracker the files of a run that is done. The run stays done whatever becomes of them."""
    try:
        write_report(folder)
        tracker.files(folder)
    except Exception as error:
        logger.warning("The tracker did not get its files: %s: %s", type(error).__name__, error)


def _without_secrets(config: ExperimentConfig) -> dict[str, Any]:
    """The config as plain values, for files and trackers."""
    plain: dict[str, Any] = redact(asdict(config))
    return plain


def _open_folder(asked: _Asked, method: Method[MethodConfig]) -> dict[str, Any]:
    """Make the folder with ``config.yaml`` and ``environment.json``; returns what the latter holds."""
    config, folder = asked.config, asked.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (folder.parent, folder.parent.parent):
            fsync(parent)
        text = yaml.safe_dump(_without_secrets(config), sort_keys=False, allow_unicode=True)
        write_text(folder / CONFIG, text)
        known: dict[str, Any] = {
            "code": environment.code_version(),
            "fingerprints": fingerprints(config),
            "ignored": ignored_keys(config, method),
            "tuned": redact(list(asked.tuned)),
        }
        if ranks.world_size() > 1:
            known["processes"] = ranks.world_size()
        made_by = environment.describe_environment(asked.command) | known
        write_json(folder / ENVIRONMENT, made_by)
    except OSError as error:
        raise unwritable("output_dir", config.output_dir, error, (folder / STATUS).exists()) from error
    return made_by


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """The report is written however the run ends: of a stopped run it shows how far that came, and why."""
    try:
        yield
    except BaseException:
        try:
            if folder.exists():
                write_report(folder)
        except Exception as error:  # a full disk or memory: the run's own error is what the user must see
            logger.warning("No report: %s: %s", type(error).__name__, error)
        raise
    write_report(folder)
