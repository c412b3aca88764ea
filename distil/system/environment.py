"""Where a run took place: versions, code, device, and the memory it took at its peak."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]

PACKAGES = (
    "distil-runner",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "peft",
    "bitsandbytes",
    "hydra-core",
    "omegaconf",
    "numpy",
    "evaluate",
    "rouge-score",
    "sacrebleu",
    "gguf",
    "wandb",
    "tensorboard",
)
"""Distributions whose versions can change a result or say how it was tracked."""

TINY = 128
"""Width of hidden states up to which an operation is so short that threads mostly wait for each other."""


@cache
def _own_threads() -> int:
    import torch

    return torch.get_num_threads()


def use_threads(threads: int | None) -> None:
    """Let torch use ``threads`` for one operation; None: as many as it used before the first call of this."""
    import torch

    own = _own_threads()  # asked before they change
    torch.set_num_threads(threads or own)


def crowded(hidden_size: float) -> str | None:
    """A line where several threads of a tiny model share a busy machine's cores; None where they do not."""
    import torch

    threads, cores, load = torch.get_num_threads(), os.cpu_count() or 1, os.getloadavg()[0]
    # Up to one a core may be our own: of the job or the run before this one.
    if threads == 1 or hidden_size > TINY or load < 2 * cores:
        return None
    return (
        f"The machine is busy (load {load:.1f}, {cores} cores), and {threads} threads of so small a model "
        "wait for each other: run.threads=1 may be many times faster."
    )


def describe_environment(command: str) -> dict[str, Any]:
    """What ``environment.json`` holds. ``command`` holds no secret: the command line refuses them."""
    import torch

    return {
        "command": command,
        "versions": versions(),
        "git": git_state(),
        "device": _device(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Versions of the installed ``PACKAGES``; those that are not installed are left out."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(root: Path | None = None) -> dict[str, str | None]:
    """``revision`` of the checkout that this code runs from, and ``dirty``: a hash of what is not committed.

    ``dirty`` covers ``distil/`` and ``conf/``, untracked files too, and is None for a clean checkout.
    Both are None outside a checkout (an installed package) or without git.
    """
    root = PACKAGE.parent if root is None else root
    unknown: dict[str, str | None] = {"revision": None, "dirty": None}
    # A .git of its own: an environment inside somebody else's repository is not our checkout.
    if not (root / ".git").exists():
        return unknown
    revision = _git(root, "rev-parse", "HEAD")
    if revision is None:
        return unknown
    changed = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--", "distil", "conf") or ""
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", "distil", "conf") or ""
    names = sorted(name for name in untracked.split("\0") if name)
    if not changed and not names:
        return {"revision": revision.strip(), "dirty": None}
    digest = hashlib.sha256(changed.encode("utf-8", "surrogateescape"))
    for name in names:
        digest.update(f"\0{name}\0".encode("utf-8", "surrogateescape"))
        digest.update((root / name).read_bytes())
    return {"revision": revision.strip(), "dirty": digest.hexdigest()[:16]}


def code_version() -> str:
    """The package's version and a hash of the code that computes results: all of ``distil/`` but ``report/``.

    A hash of contents says in a checkout and in an installed package alike whether code changed, committed or
    not, and does not change with a commit that touches none of it.
    """
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if name.parts[0] != "report":
            digest.update(f"{name.as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"{versions().get('distil-runner', '0')}+{digest.hexdigest()[:16]}"


def reset_peak_memory() -> None:
    """Start a new measurement of the peak, where the system allows it (Linux; CUDA)."""
    with suppress(OSError):  # not Linux, or not permitted: the mark then covers the process from its start
        # "5" resets the high-water mark of the resident set: see proc(5).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes() -> int:
    """The most memory taken since ``reset_peak_memory``: of CUDA devices if in use, else of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return sum(
            int(torch.cuda.max_memory_allocated(device)) for device in range(torch.cuda.device_count())
        )
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    if torch.backends.mps.is_available():
        return "Apple GPU (mps)"
    return f"CPU, {os.cpu_count()} cores ({_processor()})"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command in ``root``; None where git is missing or refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
