"""Jobs through the launcher that the config names, Hydra's or a plugin's."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from distil.config.command_line import PLUGINS_VARIABLE
from distil.config.store import prepared
from distil.config.tuned import Tuned, tuned_files
from distil.sweeps.job import run_job
from distil.sweeps.launchers import at_once, class_of, importable, why, worker
from distil.sweeps.on_ray import ray_launcher, run_on_ray
from distil.sweeps.record import FAILED, Job, SweepRecord
from distil.sweeps.workers import Worker, cores, read_out
from distil.system.redact import redact


@dataclass(frozen=True)
class Task:
    """What a launcher calls with the config of one job, in this process or in another one."""

    folder: Path
    key: str
    program: str
    worker: Worker | None = None
    """None: in the process of the sweep."""
    compared: bool = True
    """Whether a comparison of the jobs follows."""

    def __call__(self, config: DictConfig) -> None:
        """Run one job, as launchers of Hydra's call it."""
        hydra = HydraConfig.get()
        self.run(config, list(hydra.overrides.task), tuned_files(hydra))

    def run(self, config: DictConfig, overrides: list[str], tuned: Sequence[Tuned]) -> None:
        """Run one job. Its failure stands in the record: it is neither returned nor raised."""
        say = None
        if self.worker is not None:
            self.worker.enter()
            say = self.worker.say
        command = f"{self.program} {shlex.join(overrides)}".strip()
        record = SweepRecord(self.folder, self.key)
        composed = partial(prepared, without_hydra(config), overrides)
        run_job(record, overrides, composed, command, say, tuned, self.compared)


class Launcher:
    """Gives jobs to the launcher that the config names."""

    def __init__(
        self, master: DictConfig, record: SweepRecord, program: str, config_name: str, compared: bool
    ) -> None:
        self.master, self.record = master, record
        self.program, self.config_name = program, config_name
        self.part: DictConfig = master.hydra.launcher
        plain = OmegaConf.to_container(self.part, resolve=False)
        assert isinstance(plain, dict)
        self.asked = {str(key): value for key, value in plain.items()}
        self.compared = compared
        self.started = 0

    def launch(self, jobs: list[Job]) -> None:
        """Run ``jobs``, in batches where the sweeper or the launcher wants them."""
        size = self.master.hydra.sweeper.get("max_batch_size") or len(jobs)
        if class_of(self.part) == "LocalLauncher":  # it starts all that it is given at the same time
            size = min(size, at_once(self.asked, len(jobs)))
        for start in range(0, len(jobs), size or 1):
            batch = jobs[start : start + size]
            self._run(batch)

    def leave_to_sweeper(self) -> None:
        """Give the whole to a sweeper that finds its jobs as it goes."""
        task = self._task(cores())
        with self._surroundings(task):
            sweeper = Plugins.instance().instantiate_sweeper(**self._parts(task))
            sweeper.sweep(arguments=list(self.master.hydra.overrides.task))

    def _run(self, jobs: list[Job]) -> None:
        """Run ``jobs`` at once, and one at a time those that the death of another took along."""
        reasons = self._launched(jobs)
        left = [(job, reason) for job, reason in zip(jobs, reasons, strict=True) if not self._settled(job)]
        if len(left) > 1:
            print(f"{len(left)} jobs did not end: {left[0][1]}. One at a time:", file=sys.stderr, flush=True)
            for job, _ in left:
                self._run([job])
        else:
            for job, reason in left:
                job.status, job.reason = FAILED, redact(reason) or "its process ended without a word"
                self.record.report(job)

    def _launched(self, jobs: list[Job]) -> list[str]:
        """For each job why it failed without a word of its own; empty where it did not."""
        task = self._task(len(jobs))
        words = [job.overrides for job in jobs]
        try:
            with self._surroundings(task):
                if (on_ray := ray_launcher(self.part)) is not None:
                    loader = GlobalHydra.instance().config_loader()
                    whole = [(job, loader.load_sweep_config(self.master, job)) for job in words]
                    sent = [(job, without_hydra(each), tuned_files(each.hydra)) for job, each in whole]
                    return run_on_ray(on_ray, task.run, sent, os.environ.get(PLUGINS_VARIABLE, ""))
                launcher = Plugins.instance().instantiate_launcher(**self._parts(task))
                returned = launcher.launch(words, initial_job_idx=self.started)
        except Exception as error:  # of the launcher: a job does not raise
            return [why(error)] * len(jobs)
        finally:
            self.started += len(jobs)
        return [str(each._return_value) if each.status == JobStatus.FAILED else "" for each in returned]

    def _task(self, jobs: int) -> Task:
        if class_of(self.asked) == "JoblibLauncher":
            with read_write(self.part):  # null is one to it, and one is no process of its own
                self.part.n_jobs = at_once(self.asked, jobs) if jobs > 1 else 2
        told = worker(self.asked, self.record.folder, jobs)
        return Task(self.record.folder, self.record.key, self.program, told, self.compared)

    def _parts(self, task: Task) -> Mapping[str, Any]:
        loader = GlobalHydra.instance().config_loader()
        context = HydraContext(config_loader=loader, callbacks=Callbacks(self.master))
        return {"config": self.master, "hydra_context": context, "task_function": task}

    def _surroundings(self, task: Task) -> ExitStack:
        """Callbacks of Hydra's; for other processes what they need to start, and what they say."""
        stack, callbacks = ExitStack(), Callbacks(self.master)
        told: Mapping[str, Any] = {"config": self.master, "config_name": self.config_name}
        callbacks.on_multirun_start(**told)
        stack.callback(callbacks.on_multirun_end, **told)
        if task.worker is not None:
            stack.enter_context(importable(self.record.folder))
            stack.enter_context(read_out(self.record.folder) if task.worker.silent else nullcontext())
        return stack

    def _settled(self, job: Job) -> bool:
        return next(each for each in self.record.jobs() if each.overrides == job.overrides).settled


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of ``config`` without Hydra's own part."""
    config = config.copy()
    with read_write(config), open_dict(config):
        config.pop("hydra", None)
    return config
