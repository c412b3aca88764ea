"""Hydra's side of a sweep: which jobs there are, and who launches them.

A grid of values is expanded here, so that its jobs are known, checked and counted before the launcher (any of
Hydra's) is given those that are left. A sweeper that finds its jobs as it goes keeps its own way.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from distil.config.command_line import check_arguments
from distil.config.schema import ExperimentConfig
from distil.config.store import explained, prepared
from distil.experiment import locate
from distil.sweeps.end import finish
from distil.sweeps.job import run_job
from distil.sweeps.plan import opening, plan
from distil.sweeps.record import DONE, FAILED, INTERRUPTED, REPORTS, Job, SweepRecord, key_of
from distil.types import InputError, RunInterrupted


@dataclass(frozen=True)
class Request:
    """A sweep as it was asked for."""

    conf: Path
    config_name: str
    overrides: Sequence[str]
    """As Hydra wants them, its own among them."""
    command: str
    """What was typed."""
    program: str
    """What stands before the overrides of a job in the command that runs it alone."""
    version_base: str


@dataclass(frozen=True)
class Task:
    """What a launcher calls with the config of one job, in this process or in another one."""

    folder: Path
    key: str
    program: str

    def __call__(self, config: DictConfig) -> None:
        """Run one job. Its failure stands in the record: it is neither returned nor raised."""
        overrides = list(HydraConfig.get().overrides.task)
        command = f"{self.program} {shlex.join(overrides)}".strip()
        run_job(SweepRecord(self.folder, self.key), overrides, lambda: prepared(config, overrides), command)


def sweep(request: Request) -> None:
    """Plan, check, run, compare.

    Raises InputError before the first job, RunInterrupted after Ctrl-C, DistilError where a job failed.
    """
    with ExitStack() as stack:
        stack.enter_context(initialize_config_dir(str(request.conf), version_base=request.version_base))
        master = _composed(request)
        folder = Path(master.output_dir) / master.name
        record = SweepRecord(folder.absolute(), key_of([request.command]))
        jobs = _planned(master, folder)
        record.begin(request.command, jobs or ())
        for line in opening(jobs, folder) if jobs else (f"Sweep in {folder}.",):
            print(line, flush=True)
        place = record.folder / REPORTS / "launcher"
        if _is(master.hydra.launcher, BasicLauncher):  # it makes an empty folder for each job
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distil-sweep-")))
        _set(master, "hydra.sweep.dir", str(place))
        try:
            _launch(master, request, record, jobs)
        except (KeyboardInterrupt, RunInterrupted):
            raise _stopped(record, request) from None
        finally:
            (place / "multirun.yaml").unlink(missing_ok=True)  # holds every override word by word
    finish(record, request.command)


def _composed(request: Request) -> DictConfig:
    """The config of the sweep as a whole, with Hydra's own part: values that are swept have their default."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    with explained(request.overrides):
        return hydra.compose_config(
            config_name=request.config_name,
            overrides=[*request.overrides, "hydra.mode=MULTIRUN"],
            run_mode=RunMode.MULTIRUN,
            with_log_configuration=False,
        )


def _planned(master: DictConfig, folder: Path) -> list[Job] | None:
    """The jobs of a grid, all of them checked. None for a sweeper that finds its jobs as it goes.

    Raises InputError where one cannot run; of another sweeper's, where the config that all share cannot.
    """
    if not _is(master.hydra.sweeper, BasicSweeper):
        locate(prepared(_without_hydra(master), []))
        return None
    words = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    words += master.hydra.overrides.task
    check_arguments(words)  # a sweep's parameters may come from a file, and each becomes a job's command
    with explained(words):
        loader = GlobalHydra.instance().config_loader()
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
    return plan([(job, _config_of(master, job)) for job in jobs], folder)


def _config_of(master: DictConfig, overrides: list[str]) -> ExperimentConfig | InputError:
    """The config of one job as its launcher will compose it, or what is wrong with it."""
    try:
        with explained(overrides):
            config = GlobalHydra.instance().config_loader().load_sweep_config(master, overrides)
        return prepared(_without_hydra(config), overrides)
    except InputError as error:
        return error


def _launch(master: DictConfig, request: Request, record: SweepRecord, jobs: list[Job] | None) -> None:
    """Give what is left to the launcher, or the whole to a sweeper of its own way."""
    callbacks = Callbacks(master)
    parts: Mapping[str, Any] = {
        "config": master,
        "hydra_context": HydraContext(
            config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks
        ),
        "task_function": Task(record.folder, record.key, request.program),
    }
    callbacks.on_multirun_start(config=master, config_name=request.config_name)
    try:
        if jobs is None:
            sweeper = Plugins.instance().instantiate_sweeper(**parts)
            sweeper.sweep(arguments=list(master.hydra.overrides.task))
        elif left := [job for job in jobs if job.same_as is None and job.status != DONE]:
            launcher = Plugins.instance().instantiate_launcher(**parts)
            size = master.hydra.sweeper.max_batch_size or len(left)
            for start in range(0, len(left), size):
                _batch(launcher, record, left[start : start + size], start)
    finally:
        callbacks.on_multirun_end(config=master, config_name=request.config_name)


def _batch(launcher: Any, record: SweepRecord, jobs: list[Job], start: int) -> None:
    """Launch ``jobs``; those that could not even report are failed with the reason their launcher gives."""
    reasons = ["its process ended without a word"] * len(jobs)
    try:
        returned = launcher.launch([job.overrides for job in jobs], initial_job_idx=start)
        reasons = [str(each._return_value) if each.status == JobStatus.FAILED else "" for each in returned]
    except Exception as error:  # of the launcher: a job does not raise
        reasons = [f"{type(error).__name__}: {error}"] * len(jobs)
    states = {tuple(job.overrides): job for job in record.jobs()}
    for job, reason in zip(jobs, reasons, strict=False):
        state = states[tuple(job.overrides)]
        if not state.settled:
            state.status, state.reason = FAILED, reason or "its process ended without a word"
            record.report(state)


def _stopped(record: SweepRecord, request: Request) -> RunInterrupted:
    jobs = record.end(INTERRUPTED)
    done = sum(job.status == DONE for job in jobs)
    return RunInterrupted(
        f"Stopped with {done} of {len(jobs)} jobs done. The same command goes on:\n  {request.command}"
    )


def _is(config: DictConfig, plugin: type) -> bool:
    """Whether Hydra's part ``config`` names ``plugin``."""
    return str(config._target_).rpartition(".")[2] == plugin.__name__


def _without_hydra(config: DictConfig) -> DictConfig:
    config = config.copy()
    with read_write(config), open_dict(config):
        config.pop("hydra", None)
    return config


def _set(master: DictConfig, key: str, value: str) -> None:
    """Set one of Hydra's own keys for the sweep, and for the jobs, whose configs are composed afresh."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    with read_write(master), open_dict(master):
        OmegaConf.update(master, key, value)
        master.hydra.overrides.hydra.append(f"{key}='{quoted}'")
