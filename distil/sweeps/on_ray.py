"""Jobs on Ray: a local instance that ends with the sweep, or a cluster that runs already.

Hydra has a plugin for this. It wants cloudpickle below 3 where joblib wants 3, and brings AWS along: it
cannot be installed beside what the rest needs.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distil.config.command_line import PLUGINS_VARIABLE
from distil.config.tuned import Tuned
from distil.registry import load_plugins
from distil.sweeps.launchers import at_once, class_of, why
from distil.sweeps.workers import cores
from distil.types import InputError

OBJECT_STORE_BYTES = 78_643_200
"""The least that Ray takes: jobs hand nothing to each other."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # GPUs are handed out by us where a job asks Ray for none
    "RAY_worker_niceness": "0",  # Ray's 15 makes jobs wait for whatever else runs
}
"""Of Ray's own; what the user has set counts more."""

Run = Callable[[Any, list[str], Sequence[Tuned]], None]
"""Runs one job: its composed config, the overrides and the files of tuned keys it was composed with."""


@dataclass(frozen=True)
class Work:
    """One job, as it travels: nothing of it is unpickled before the plugins are loaded."""

    run: Run
    config: bytes
    overrides: list[str]
    tuned: Sequence[Tuned]
    plugins: str

    def __call__(self) -> None:
        """Run the job."""
        os.environ[PLUGINS_VARIABLE] = self.plugins
        load_plugins(path for path in self.plugins.split(os.pathsep) if path)
        self.run(pickle.loads(self.config), self.overrides, self.tuned)


def work(job: Work) -> None:
    """What Ray calls."""
    job()


@dataclass(frozen=True)
class RayLauncher:
    """``hydra.launcher`` of jobs on Ray."""

    n_jobs: int | None = None
    """Side by side, on an instance of our own. None: one a GPU, without GPUs one a core."""
    ray: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """``init`` and ``remote``: keys of ``ray.init`` and ``ray.remote``."""


def ray_launcher(part: Mapping[str, Any]) -> RayLauncher | None:
    """``hydra.launcher`` as a RayLauncher; None where it is another one. InputError for an unknown key."""
    if class_of(part) != RayLauncher.__name__:
        return None
    calls = part.get("ray") or {}
    _refuse_unknown("hydra.launcher", {*part} - {"_target_"}, ("n_jobs", "ray"))
    _refuse_unknown("hydra.launcher.ray", calls, ("init", "remote"))
    return RayLauncher(part.get("n_jobs"), calls)


def _refuse_unknown(group: str, given: Iterable[str], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise InputError(
                f"{group}.{key} is unknown: {group} has no such key. It has: {', '.join(known)}."
            )


def run_on_ray(
    launcher: RayLauncher, run: Run, jobs: Sequence[tuple[list[str], Any, Sequence[Tuned]]], plugins: str
) -> list[str]:
    """Run ``jobs`` (overrides, composed config, tuned files of each) and wait for all of them.

    Returns for each job why its process ended without a word, empty where it did not.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    ray: Any = importlib.import_module("ray")  # its overloads know no options in a dict

    init, remote = dict(launcher.ray.get("init") or {}), dict(launcher.ray.get("remote") or {})
    if init.get("address") in (None, "local"):
        init = {
            "num_cpus": cores(),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        } | init
        remote = {"num_cpus": cores() / at_once({"n_jobs": launcher.n_jobs}, len(jobs))} | remote
    init = {"log_to_driver": False, "logging_level": logging.ERROR} | init
    # A process that dies is a failed job: the same command goes on from its checkpoint.
    remote = {"num_cpus": 1, "max_retries": 0} | remote
    ray.init(**init)
    try:
        task = ray.remote(**remote)(work)
        sent = [
            task.remote(Work(run, pickle.dumps(config), words, tuned, plugins))
            for words, config, tuned in jobs
        ]
        return [_outcome(ray, each) for each in sent]
    finally:
        ray.shutdown()


def _outcome(ray: Any, sent: Any) -> str:
    try:
        ray.get(sent)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        if isinstance(getattr(error, "cause", None), KeyboardInterrupt):
            raise KeyboardInterrupt from None
        return why(error)
    return ""
