"""Launchers we know: which package each needs, and how many of its jobs run at once on this machine."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distil.registry import loaded_plugins
from distil.sweeps.record import REPORTS
from distil.sweeps.workers import Worker, cores, jobs_at_once, shares
from distil.system.extras import install
from distil.types import InputError

PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Known:
    """A launcher or a sweeper that is an extra of ours."""

    extra: str
    package: str
    """What is imported."""
    local: bool = True
    """Whether its jobs run on this machine, side by side."""
    silent: bool = True
    """Whether what its jobs print goes elsewhere than to this terminal."""


KNOWN = {
    "JoblibLauncher": Known("joblib", "hydra_plugins.hydra_joblib_launcher", silent=False),
    "LocalLauncher": Known("submitit", "hydra_plugins.hydra_submitit_launcher"),
    "SlurmLauncher": Known("submitit", "hydra_plugins.hydra_submitit_launcher", local=False),
    "RayLauncher": Known("ray", "ray"),
    "SearchSweeper": Known("optuna", "optuna"),
}
"""By the class that ``_target_`` names."""
BASIC = "BasicLauncher"


def class_of(part: Mapping[str, Any]) -> str:
    """The class that ``_target_`` of a launcher or a sweeper names."""
    return str(part["_target_"]).rpartition(".")[2]


def check_installed(key: str, choice: str, part: Mapping[str, Any]) -> None:
    """Raise InputError where ``part`` (``key=choice``) needs a package that is not there. Imports none."""
    known = KNOWN.get(class_of(part))
    if known is None:
        return
    try:
        found = find_spec(known.package) is not None
    except ImportError:  # its parent is not there either
        found = False
    if not found:
        raise InputError(f"{key}={choice} needs a package that is not installed: {install(known.extra)}")


def at_once(part: Mapping[str, Any], jobs: int) -> int:
    """How many of ``jobs`` jobs the launcher ``part`` runs side by side on this machine."""
    asked = part.get("n_jobs")
    if asked is None:
        asked = jobs_at_once(os.environ)
        if each := part.get("cpus_per_task"):
            asked = min(asked, cores() // each)
    if asked < 0:  # joblib's way to say: all cores, or all but some
        asked = cores() + 1 + asked
    return max(1, min(asked, jobs))


def worker(part: Mapping[str, Any], folder: Path, jobs: int) -> Worker | None:
    """What each of ``jobs`` jobs of the launcher ``part`` is told; None where they run in this process."""
    name = class_of(part)
    if name == BASIC:
        return None
    known = KNOWN.get(name)
    threads: int | None = None
    devices: tuple[str, ...] = ()
    elsewhere = known is not None and (not known.local or _on_a_cluster(part))
    if known is not None and not elsewhere:
        threads, devices = shares(at_once(part, jobs), os.environ)
    silent = known is not None and known.silent
    host = "" if elsewhere else socket.gethostname()
    return Worker(folder, host, os.getpid(), threads, devices, silent)


def _on_a_cluster(part: Mapping[str, Any]) -> bool:
    """Whether a Ray cluster that runs already has the jobs: it gives each its cores and GPUs."""
    address = ((part.get("ray") or {}).get("init") or {}).get("address")
    return address not in (None, "local")


def why(error: Exception) -> str:
    """What a launcher says of a process that died, in one line: they go on with advice and tracebacks."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Lets processes that a launcher starts import this package and the plugins that are loaded here.

    They unpickle configs before anything of ours runs there, and those name the plugins' classes.
    """
    place = folder / REPORTS / "plugins"
    place.mkdir(parents=True, exist_ok=True)
    modules = [place / f"{name}.py" for name in loaded_plugins()]
    for module, file in zip(modules, loaded_plugins().values(), strict=True):
        # Not a link: a plugin may look for files beside its own.
        read = "exec(compile(open(__file__, encoding='utf-8').read(), __file__, 'exec'))"
        module.write_text(f"__file__ = {str(file)!r}\n{read}\n", encoding="utf-8")
    added, before, path = [str(place), str(PACKAGE_ROOT)], os.environ.get("PYTHONPATH"), list(sys.path)
    os.environ["PYTHONPATH"] = os.pathsep.join([*added, *([before] if before else [])])
    sys.path += [folder for folder in added if folder not in sys.path]  # joblib hands on this one
    try:
        yield
    finally:
        sys.path[:] = path
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        for module in modules:
            module.unlink(missing_ok=True)


def forget_pickles(place: Path) -> None:
    """Remove what submitit wrote for its processes: the code and config of every job, and what it returned.

    Logs and batch scripts stay.
    """
    for file in place.rglob("*.pkl"):
        file.unlink(missing_ok=True)
