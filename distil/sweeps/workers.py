"""What a job needs to know in a process of a launcher: its share of the machine, and when to end.

A launcher starts processes and knows nothing of the others'. Here each takes its part of the cores and one of
the GPUs, and ends when the sweep that started it is gone.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distil.sweeps.record import REPORTS
from distil.system.locks import remove_free, take
from distil.system.machine import cpus
from distil.system.stopping import hear_first

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Read by torch and numpy when they load: they are set before."""
DEVICES = "CUDA_VISIBLE_DEVICES"
SAID = "said.log"
"""What jobs say that have no terminal of their own; the sweep's process reads it out."""
LOOK = 1.0
"""Seconds between two looks at whether the sweep still lives."""

_slots: list[int] = []
"""The lock on this process's place among the workers: held until the process ends."""


@dataclass(frozen=True)
class Worker:
    """Handed to every job of a parallel launcher."""

    folder: Path
    """The sweep's."""
    host: str
    pid: int
    """Of the sweep's process on ``host``: a job there ends with it. Empty, of a cluster: its jobs go on."""
    threads: int | None
    """Threads of one job. None: the user said how many, or the scheduler of a cluster does."""
    devices: tuple[str, ...]
    """GPUs to hand out, by ``CUDA_VISIBLE_DEVICES``. Empty: there are none, or a scheduler does it."""
    silent: bool
    """Whether what the job prints ends in a log of the launcher, and has to be said by the sweep."""

    def enter(self) -> None:
        """Take this process's share, once. To be called before torch is imported."""
        if _slots:
            return
        hear_first()
        number = self._take_slot()
        threads = self.threads or _allotted(os.environ)
        if threads is not None:
            os.environ.update(dict.fromkeys(THREADS, str(threads)))
            if (torch := sys.modules.get("torch")) is not None:  # a plugin imports it at its top
                torch.set_num_threads(threads)
        if self.devices:
            os.environ[DEVICES] = self.devices[number % len(self.devices)]
        if self.host == socket.gethostname() and self.pid != os.getpid():
            threading.Thread(target=_end_with, args=(self.pid,), daemon=True).start()

    def say(self, text: str) -> None:
        """Print ``text``, or have the sweep's process print it."""
        if not self.silent:
            print(text, file=sys.stderr, flush=True)
            return
        # One write of one line: lines of two processes do not mix.
        with suppress(OSError), open(self.folder / REPORTS / SAID, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def _take_slot(self) -> int:
        """The lowest number that no other worker of this sweep on this machine has."""
        folder = self.folder / REPORTS / "slots"
        folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            lock = take(folder / f"{socket.gethostname()}-{number}")
            if lock is not None:
                _slots.append(lock)
                return number
            number += 1


def shares(at_once: int, environment: Mapping[str, str]) -> tuple[int | None, tuple[str, ...]]:
    """Threads of each of ``at_once`` jobs on this machine, and the GPUs to hand out.

    Where the user set ``OMP_NUM_THREADS`` there is nothing to divide: None.
    """
    threads = None if "OMP_NUM_THREADS" in environment else max(1, cores() // at_once)
    return threads, visible_devices(environment)


def jobs_at_once(environment: Mapping[str, str]) -> int:
    """How many jobs run side by side where nobody says: one a GPU, without GPUs one a core."""
    return len(visible_devices(environment)) or cores()


def visible_devices(environment: Mapping[str, str]) -> tuple[str, ...]:
    """GPUs that may be used, by ``CUDA_VISIBLE_DEVICES``. No library is asked: that would take seconds."""
    chosen = environment.get(DEVICES)
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))
    found = [
        match[1]
        for path in Path("/dev").glob("nvidia*")
        if (match := re.fullmatch(r"nvidia(\d+)", path.name))
    ]
    return tuple(sorted(found, key=int))


def cores() -> int:
    """Whole cores that this process may use, at least one: a container may have fewer than the machine."""
    return max(1, int(cpus()[1]))


def clear(folder: Path) -> None:
    """Remove what the workers of a sweep left: places that nobody has, lines that were read out."""
    for path in (folder / REPORTS / "slots").glob("*"):
        remove_free(path)
    (folder / REPORTS / SAID).unlink(missing_ok=True)


@contextmanager
def read_out(folder: Path) -> Iterator[None]:
    """While inside, print what silent workers say."""
    path, ended = folder / REPORTS / SAID, threading.Event()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("", encoding="utf-8")

    def follow() -> None:
        with open(path, encoding="utf-8") as file:
            while True:
                last = ended.is_set()  # asked before reading: what was said before the end is read
                sys.stderr.write(file.read())
                sys.stderr.flush()
                if last:
                    return
                ended.wait(0.2)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _allotted(environment: Mapping[str, str]) -> int | None:
    """Cores that Slurm gave this job, where the user did not say how many threads there are."""
    if "OMP_NUM_THREADS" in environment or "SLURM_CPUS_PER_TASK" not in environment:
        return None
    return int(environment["SLURM_CPUS_PER_TASK"])


def _end_with(pid: int) -> None:
    """End this process when ``pid`` is gone, as if by kill -9: a run goes on from that as from anything."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGKILL)
        except PermissionError:
            pass  # lives
        time.sleep(LOOK)
