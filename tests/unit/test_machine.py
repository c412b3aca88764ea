"""``distil doctor`` on this machine: one screen, no torch, no network, no secret; its facts another way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distil.sweeps import workers
from distil.system import extras, machine
from distil.verbs.doctor import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef" * 2
WATCHED = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError(event)
sys.addaudithook(refuse)
from distil import cli
code = cli.main(["doctor"])
assert "torch" not in sys.modules or {gpu}, "torch was imported"
sys.exit(code)
"""


def doctor(folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED.format(gpu=any(map(os.path.exists, machine.GPU_NODES)))],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "HOME": str(folder), **variables},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_one_screen_without_torch_network_or_secrets(tmp_path: Path) -> None:
    said = doctor(tmp_path, WANDB_API_KEY=KEY, HF_TOKEN=KEY)
    lines = said.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for what in ("torch", "GPU", "bf16", "4 and 8 bits", "CPUs", "memory", "disk", "network", "W&B key"):
        assert any(line.startswith(what) for line in lines), what
    assert "network        not looked at" in said
    assert "in WANDB_API_KEY" in said
    assert KEY not in said
    assert all(name in said.replace("\n               ", " ") for name in EXTRAS)
    assert not list(tmp_path.iterdir()), "it leaves nothing"


def test_keys_are_looked_for_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert machine.wandb_key() is None
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n", encoding="utf-8")
    assert machine.wandb_key() == f"in {tmp_path / 'netrc'}"
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.example")
    assert machine.wandb_key() is None
    (tmp_path / "netrc").write_text("machine", encoding="utf-8")
    assert machine.wandb_key() is None


def test_facts_are_those_of_the_libraries(tmp_path: Path) -> None:
    import psutil
    import torch

    build = machine.torch_build()
    assert build is not None
    assert build[0] == torch.__version__
    assert (build[1] == "CPU") == (torch.version.cuda is None and torch.version.hip is None)
    assert len(machine.gpus(build[1])) == torch.cuda.device_count()
    count, allowed = machine.cpus()
    assert count == psutil.cpu_count()
    assert 0 < allowed <= count
    total, free = machine.memory()
    assert 0 < free <= total <= psutil.virtual_memory().total
    assert machine.free_disk(tmp_path / "not" / "yet") == pytest.approx(
        shutil.disk_usage(tmp_path).free, rel=0.05
    )
    if machine.installed("bitsandbytes"):
        assert "cpu" in machine.bitsandbytes_libraries()


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", None), ("50000 100000", 0.5), ("150000 100000", 1.5)]
)
def test_limits_of_a_cgroup_count(
    quota: str, cpus: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own, or one above it."""
    line = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().splitlines()[-1]
    folder = tmp_path / line.rpartition(":")[2].lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    free = (machine.cpus(), machine.memory()[0])
    (folder / "cpu.max").write_text(quota, encoding="utf-8")
    (tmp_path / "memory.max").write_text("1000000000", encoding="utf-8")
    (tmp_path / "memory.current").write_text("400000000", encoding="utf-8")
    assert machine.cpus()[1] == min(free[0][1], cpus or free[0][1])
    assert workers.cores() == max(1, int(machine.cpus()[1])), "and a sweep starts no more jobs than that"
    assert machine.memory() == (1_000_000_000, 600_000_000)


def test_the_limits_of_every_level_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide cgroup inside a narrow and full one has what the narrow one has left; and the other way."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    inner = tmp_path / "narrow" / "wide"
    inner.mkdir(parents=True)
    monkeypatch.setattr(machine, "_cgroups", lambda: iter((inner, inner.parent, tmp_path)))
    for folder, limit, used, quota in ((inner, 8000, 100, "80000"), (inner.parent, 4000, 3900, "40000")):
        (folder / "memory.max").write_text(f"{limit}\n", encoding="utf-8")
        (folder / "memory.current").write_text(f"{used}\n", encoding="utf-8")
        (folder / "cpu.max").write_text(f"{quota} 100000\n", encoding="utf-8")
    assert machine.memory() == (4000, 100)
    assert machine.cpus()[1] == 0.4
    (inner / "memory.max").write_text("1000\n", encoding="utf-8")
    (inner / "memory.current").write_text("950\n", encoding="utf-8")
    assert machine.memory() == (1000, 50)


def test_an_extra_comes_from_where_the_code_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(extras.FOLDER)
    assert extras.install("adapters") == "pip install -e '.[adapters]'"
    monkeypatch.chdir(tmp_path)
    assert extras.install("adapters") == f"pip install -e '{extras.FOLDER}[adapters]'"
    monkeypatch.setattr(extras, "FOLDER", tmp_path)  # as where a wheel is unpacked
    assert extras.install("adapters") == "pip install 'distil-runner[adapters]'"
