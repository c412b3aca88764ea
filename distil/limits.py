"""Too little memory: told before anything loads where a limit says so, else known by what libraries say."""

from __future__ import annotations

import resource

from distil.types import InputError

OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "can't start new thread",
    "error return without exception set",
)
"""Of what torch, the system, the loader of libraries, and Python, twice, say where there is no more."""
IMPORTS = 2_300_000_000
"""Bytes of addresses that torch (for a CPU) and transformers take alone; drivers of GPUs take more. With
fewer, some of their libraries abort, and OpenBLAS tries for ever."""


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is of memory that is not there, whatever its type."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in OF_MEMORY)


def check_addresses() -> None:
    """Raise InputError where this process may not have the addresses that imports take."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (resource.RLIM_INFINITY, -1) and limit < IMPORTS:
        raise InputError(
            f"The limit of addresses (ulimit -v) is {limit / 1e9:.2f} GB here, and torch and transformers "
            f"alone take {IMPORTS / 1e9:.1f} GB of them. Lift it (ulimit -v unlimited); what limits memory "
            "itself is a cgroup (systemd-run -p MemoryMax=8G …, Slurm's --mem)."
        )
