"""Launchers: an extra that is not there, jobs at once, and which option needs what."""

from __future__ import annotations

import importlib
import importlib.util
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from distil.config.help import conf_folder
from distil.sweeps import launchers
from distil.sweeps.launchers import KNOWN, at_once, check_installed, class_of, why, worker
from distil.sweeps.on_ray import RayLauncher, ray_launcher
from distil.sweeps.workers import cores
from distil.types import InputError

PRESETS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((conf_folder() / "hydra").glob("*/*.yaml"))
}
ROOT = Path(__file__).resolve().parents[3]


def test_every_preset_has_an_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert {class_of(preset) for preset in PRESETS.values()} == set(KNOWN)
    assert {known.extra for known in KNOWN.values()} <= set(extras)


@pytest.mark.parametrize("name", PRESETS)
def test_a_missing_extra_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS[name]
    known = KNOWN[class_of(preset)]
    check_installed("hydra/launcher", name, preset)  # the tests have all of them

    def find(package: str) -> None:
        if "." in package:  # as where no plugin of Hydra's is installed
            raise ModuleNotFoundError(package)

    monkeypatch.setattr(launchers, "find_spec", find)
    with pytest.raises(InputError, match=rf"={name} needs .* pip install .*\[{known.extra}\]'"):
        check_installed("hydra/launcher", name, preset)


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_of_ours_names_is_there(name: str) -> None:
    module, _, target = PRESETS[name]["_target_"].rpartition(".")
    if module.startswith("distil."):
        assert isinstance(getattr(importlib.import_module(module), target), type)


def test_the_keys_of_jobs_on_ray() -> None:
    preset = PRESETS["local_ray"]
    assert ray_launcher(preset) == RayLauncher(ray={"init": {}, "remote": {}})
    assert ray_launcher(PRESETS["local_joblib"]) is None
    with pytest.raises(InputError, match=r"hydra\.launcher\.n_job is unknown.*n_jobs"):
        ray_launcher(preset | {"n_job": 2})
    with pytest.raises(InputError, match=r"hydra\.launcher\.ray\.remotes is unknown.*remote"):
        ray_launcher(preset | {"ray": {"remotes": {}}})


def test_a_launcher_of_the_users_is_not_ours_to_check() -> None:
    check_installed("hydra/launcher", "mine", {"_target_": "mine.Launcher"})
    assert importlib.util.find_spec("mine") is None


@pytest.mark.parametrize(
    ("part", "jobs", "expected"),
    [
        ({"n_jobs": 3}, 8, 3),
        ({"n_jobs": 3}, 2, 2),
        ({"n_jobs": -1}, 10_000, cores()),
        ({"n_jobs": None}, 10_000, cores()),
        ({"cpus_per_task": 10_000}, 8, 1),
        ({"cpus_per_task": None}, 10_000, cores()),
    ],
)
def test_jobs_at_once(
    part: dict[str, Any], jobs: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert at_once(part, jobs) == expected


@pytest.mark.parametrize(("each", "expected"), [(None, 8), (1, 8), (2, 8), (4, 4), (9, 1)])
def test_a_gpu_is_not_divided_by_the_cores_of_its_job(
    each: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    monkeypatch.setattr("distil.sweeps.launchers.cores", lambda: 16)
    assert at_once({"cpus_per_task": each}, 100) == expected


def test_what_each_job_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares on this machine; none where the scheduler of a cluster hands out cores and GPUs."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert (
        worker({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}, tmp_path, 4) is None
    )
    local = worker(PRESETS["local_joblib"], tmp_path, 4)
    assert local is not None
    assert local.host == socket.gethostname()
    assert (local.threads, local.devices) == (max(1, cores() // 2), ("0", "1"))
    cluster = {"ray": {"init": {"address": "auto"}}}
    for preset in (PRESETS["cluster_slurm"], PRESETS["local_ray"] | cluster):
        told = worker(preset, tmp_path, 4)
        assert told is not None
        assert (told.threads, told.devices) == (None, ())
        assert told.host == "", "its jobs go on where the command is stopped"


def test_why_a_process_died_is_one_line() -> None:
    assert why(OSError("\nkilled by signal 9\n\nTraceback: …")) == "OSError: killed by signal 9"
    assert why(OSError()) == "OSError: "
