"""Too little memory: told before anything loads where a limit says so, else known by what libraries say."""

from __future__ import annotations

import resource

from distil.types import InputError

OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "error return without exception set",
)
"""Of what torch, the system, the loader of libraries, and Python say where there is no more."""
NO_THREAD = "can't start new thread"
"""Python's words where there is no memory for a thread's stack, or one more is not allowed."""
RUN = 2_450_000_000
"""Bytes of addresses that a run takes at least, for a CPU (some steps of the embedded pair in one thread took
2.5 GB, and failed with less); drivers of GPUs take more. With fewer, libraries abort, and OpenBLAS tries for
ever."""
IMPORTS = 1_200_000_000
"""Bytes of addresses that torch (for a CPU) and transformers take alone."""


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is of memory that is not there, whatever its type."""
    words = (*OF_MEMORY, NO_THREAD)
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def shortage(error: BaseException) -> str:
    """What there is no more of, by an ``error`` that is ``out_of_memory``."""
    if NO_THREAD in str(error).lower():
        return "Out of memory, or of processes by ulimit -u or the container's pids limit"
    return "Out of memory"


def check_addresses(least: int, what: str) -> None:
    """Raise InputError where this process may not have the ``least`` bytes of addresses ``what`` takes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (resource.RLIM_INFINITY, -1) and limit < least:
        raise InputError(
            f"The limit of addresses (ulimit -v) is {limit / 1e9:.2f} GB here, and {what} takes at least "
            f"{least / 1e9:.1f} GB of them. Lift it (ulimit -v unlimited); what limits memory itself is a "
            "cgroup (systemd-run -p MemoryMax=8G …, Slurm's --mem)."
        )
