"""Sweeps for hours, stopped and killed at random, and what they leave behind: files, processes, memory."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from scripts.chaos.trials import Trial

SWEPT = ["method=sft,kd,revkd,gkd", "peft=none,lora,ia3", "seed=0,1"]
JOBS = 24
MARK = "DISTIL_SOAK"
"""In the environment of every process of a soak, and of those that they start."""
BETWEEN = (5.0, 90.0)
"""Seconds between two disturbances."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
GRACE = 60.0
"""Seconds in which a sweep that is asked to stop has stopped."""
GROWTH = 1.05
"""Memory at the end of a sweep, of that after its third job."""


def soak(root: Path, base: list[str], *, minutes: float, seed: int) -> Iterator[Trial]:
    """A sweep in peace, whose memory is watched; then the same, disturbed, until the time is up."""
    chance, until = random.Random(seed), time.monotonic() + 60 * minutes
    (root / "tmp").mkdir(parents=True)
    peace = root / "peace"
    yield from _watched(peace, base)
    expected = (peace / "default" / "comparison.json").read_bytes()
    number = 0
    while time.monotonic() < until:
        number += 1
        folder = root / f"sweep-{number}"
        times = yield from _disturbed(folder, base, chance)
        what = f"sweep {number} after {times} disturbances"
        yield Trial(what, _differs(folder / "default" / "comparison.json", expected))
        yield from _left(root, folder, f"sweep {number}")
        shutil.rmtree(folder)


def _differs(file: Path, expected: bytes) -> str:
    """What went wrong with ``file``; empty where it holds ``expected``."""
    try:
        return "" if file.read_bytes() == expected else f"differs: {file.name}"
    except OSError as error:  # the sweep failed before
        return f"failed: {error}"


def _watched(folder: Path, base: list[str]) -> Iterator[Trial]:
    """A sweep in peace; its resident memory after each job."""
    sweep, sizes = _begun(folder, base), list[int]()
    process = psutil.Process(sweep.pid)
    while sweep.poll() is None:
        with suppress(psutil.Error):
            size = process.memory_info().rss
            done = _log(folder).count("done in ")
            if done >= len(sizes):
                sizes += [size] * (done + 1 - len(sizes))
            sizes[done] = size
        time.sleep(0.2)
    if sweep.returncode:
        raise RuntimeError(f"the sweep in peace: exit {sweep.returncode}: {_log(folder)[-400:]}")
    grown = max(sizes[JOBS // 2 :]) / sizes[3]
    what = f"memory of {JOBS} jobs: {sizes[3] / 1e6:.0f} MB after the third, at most {grown:.2f} times that"
    yield Trial(what, "" if grown <= GROWTH else "failed: it grows")


def _disturbed(folder: Path, base: list[str], chance: random.Random) -> Generator[Trial, None, int]:
    """The same command until it ends by itself; how often it did not."""
    times = 0
    while True:
        sweep = _begun(folder, base)
        with suppress(subprocess.TimeoutExpired):
            if sweep.wait(chance.uniform(*BETWEEN)) == 0:
                return times
            yield Trial(f"attempt {times + 1}", f"failed: exit {sweep.returncode}: {_log(folder)[-400:]}")
            return times
        which = chance.choice(SIGNALS)
        sweep.send_signal(which)
        times += 1
        try:
            code = sweep.wait(GRACE)
        except subprocess.TimeoutExpired:
            sweep.send_signal(signal.SIGABRT)  # it tells where it is
            sweep.wait(GRACE)
            yield Trial(which.name, f"failed: no end within {GRACE:.0f} s: {_log(folder)[-3000:]}")
            continue
        if code == 0:
            return times
        told = {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}[which]
        # A signal while Python itself starts or ends is answered by Python.
        allowed = {told, -int(which)}
        yield Trial(which.name, "" if code in allowed else f"failed: exit {code}: {_log(folder)[-400:]}")


def _begun(folder: Path, base: list[str]) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, MARK: str(os.getpid()), "TMPDIR": str(folder.parent / "tmp")}
    environment["PYTHONFAULTHANDLER"] = "1"
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "distil", "run", "-m", *base, *SWEPT, f"output_dir={folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Of a shell's background a child would not hear Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def _log(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace")


def _left(root: Path, folder: Path, what: str) -> Iterator[Trial]:
    """What should not be there any more."""
    names = [path.name for path in folder.rglob(".*") if path.suffix in (".lock", ".partial", ".old")]
    names += [path.name for path in (root / "tmp").iterdir()]
    yield Trial(f"files left by {what}", f"failed: {', '.join(names)}" if names else "")
    deadline = time.monotonic() + 15
    while (alive := _processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    yield Trial(f"processes left by {what}", f"failed: {', '.join(alive)}" if alive else "")


def _processes() -> list[str]:
    mine, found = str(os.getpid()), []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mine:
                found.append(" ".join(process.cmdline())[:100])
    return found
