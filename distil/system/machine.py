"""What a machine has for a run, told within a second: torch is imported only where it may see a GPU."""

from __future__ import annotations

import netrc
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from distil.system.files import nearest_existing

CGROUP = Path("/sys/fs/cgroup")
GPU_NODES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What drivers of NVIDIA, of AMD and of Windows' Linux put there."""
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names of /proc/cpuinfo for arithmetic in bfloat16: x86, x86, Arm."""


def installed(package: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def torch_build() -> tuple[str, str] | None:
    """torch's version and what it was built for (``CPU``, ``CUDA 12.6``, ``ROCm 6.4``), read from its files.

    None where it is not installed.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        text = ""
    named = dict(re.findall(r"^(\w+)(?:: \S+)? = '([^']+)'", text, re.MULTILINE))
    kinds = {"cuda": "CUDA", "hip": "ROCm", "xpu": "Intel XPU"}
    built = next((f"{kind} {named[key]}" for key, kind in kinds.items() if key in named), "CPU")
    if sys.platform == "darwin":
        built = "Apple (mps)"
    return named.get("__version__") or installed("torch") or "?", built


def gpus(built: str) -> list[str]:
    """Name, memory and arithmetic of each GPU that torch sees; imports it where there may be one."""
    if built == "CPU" or not (sys.platform == "darwin" or any(map(os.path.exists, GPU_NODES))):
        return []
    import torch

    if torch.cuda.is_available():
        bf16 = "bf16 native" if torch.cuda.is_bf16_supported(including_emulation=False) else "bf16 emulated"
        return [
            f"{device.name}, {device.total_memory / 1e9:.0f} GB, {bf16}"
            for device in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ]
    return ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []


def cpu_bf16() -> bool | None:
    """Whether the CPU computes in bfloat16 by itself; None where that cannot be told."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return None if flags is None else any(flag in flags[1].split() for flag in BF16_FLAGS)


def cpus() -> tuple[int, float]:
    """CPUs of the machine, and how many of them this process may use: its affinity, its cgroup's quota."""
    count = os.cpu_count() or 1
    allowed = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(count)
    for level in _cgroups():
        quota = _line(level / "cpu.max")
        if quota and not quota.startswith("max"):
            share, period = quota.split()
            allowed = min(allowed, int(share) / int(period))
    return count, allowed


def more_threads_than_cores(threads: int) -> str | None:
    """A line where ``threads`` wait for each other; None where each can have a core."""
    cores = max(1, int(cpus()[1]))
    if threads <= cores:
        return None
    return (
        f"run.threads={threads}, but this process has {cores} core{'s' * (cores > 1)}: threads that wait for "
        f"each other are slow. Take run.threads={cores} at most."
    )


def memory() -> tuple[int, int]:
    """Bytes of memory that this process may have at most, and that are free now: machine and cgroup."""
    import psutil

    seen = psutil.virtual_memory()
    total, free = int(seen.total), int(seen.available)
    for level in _cgroups():
        limit, used = _line(level / "memory.max"), _line(level / "memory.current")
        if limit.isdigit() and int(limit) < seen.total:
            total = min(total, int(limit))
            free = max(0, min(free, int(limit) - int(used or 0)))
    return total, free


def _cgroups() -> Iterator[Path]:
    """The folder of this process's cgroup (version 2) and those above it: the limits of each hold."""
    line = _line(Path("/proc/self/cgroup"), -1)
    if not line:
        return
    folder = CGROUP / line.rpartition(":")[2].lstrip("/")
    for level in (folder, *folder.parents):
        yield level
        if level == CGROUP:
            return


def _line(file: Path, index: int = 0) -> str:
    """A line of a file of the kernel; empty without one."""
    try:
        return file.read_text(encoding="utf-8").strip().splitlines()[index]
    except (OSError, IndexError):
        return ""


def free_disk(folder: Path) -> int:
    """Bytes free where ``folder`` lies, or will lie."""
    return shutil.disk_usage(nearest_existing(folder)).free


def bitsandbytes_libraries() -> list[str]:
    """What the installed bitsandbytes has code for: ``cpu``, ``cuda126`` …"""
    spec = find_spec("bitsandbytes")
    folders = spec.submodule_search_locations or [] if spec is not None else []
    names = (file.stem for folder in folders for file in Path(folder).glob("libbitsandbytes_*"))
    return sorted(name.removeprefix("libbitsandbytes_") for name in names)


WANDB_HOST = "https://api.wandb.ai"


def wandb_server() -> str:
    """The address of W&B: the user's own, else the default of the installed package (not imported)."""
    spec = find_spec("wandb")
    folders = spec.submodule_search_locations or [] if spec is not None else []
    for folder in folders:
        file = Path(folder, "sdk", "lib", "urls.py")
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if match := re.search(r'^DEFAULT_BASE_URL = "([^"]+)"', text, re.MULTILINE):
            return os.environ.get("WANDB_BASE_URL", match[1]).rstrip("/")
    return os.environ.get("WANDB_BASE_URL", WANDB_HOST).rstrip("/")


def wandb_key() -> str | None:
    """Where the key of W&B is, never what it is; None where there is none."""
    if os.environ.get("WANDB_API_KEY"):
        return "in WANDB_API_KEY"
    hosts = [wandb_server(), *(() if os.environ.get("WANDB_BASE_URL") else (WANDB_HOST,))]
    try:
        file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        known = netrc.netrc(str(file))
    except (RuntimeError, OSError, netrc.NetrcParseError):
        return None
    found = any(known.authenticators(urlsplit(host).netloc) for host in hosts)
    return f"in {file}" if found else None
