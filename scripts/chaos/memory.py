"""Runs that are given less memory than they take: they end in words, and the same command ends equal."""

from __future__ import annotations

import atexit
import os
import random
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from distil.system.limits import RUN
from scripts.chaos.runs import LOG, SHORT, ended, forked
from scripts.chaos.trials import BRIEF, Trial, held, peaceful

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = 200_000_000
"""Bytes of addresses with which Python itself begins."""
WORDS = ("Out of memory", "The limit of addresses (ulimit -v)")
NATIVE = re.compile(r"memory allocation of \d+ bytes failed|OpenBLAS|std::bad_alloc|terminate called")
"""What native libraries say that end their process themselves."""


def memory(root: Path, *, sample: int | None, seed: int) -> Iterator[Trial]:
    """The embedded run under limits of its addresses (``ulimit -v``), a third of them each: processes that
    have fewer than a run takes; processes that have more; and forks that have imported everything, for what
    comes thereafter. The last two up to what is enough."""
    overrides = [*SHORT, *BRIEF]
    expected, _ = peaceful(root / "peace", overrides)
    begins, enough = _taken(root / "measured", overrides)
    chance, count = random.Random(seed), sample or 40
    for number in range(count):
        least, most = ((SMALLEST, RUN), (RUN, enough), (begins, enough))[number % 3]
        own = number % 3 < 2
        size = int(least + (most - least) * (number // 3 + chance.random()) / ((count + 2) // 3))
        folder = root / f"limit-{number}"
        what = f"{'a process' if own else 'a fork'} with {size / 1e6:.0f} MB"
        try:
            code = (_process if own else _fork)(folder, overrides, size)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            yield Trial(what, f"failed: {error}")
            continue
        kind, wrong = _how_it_ended(folder, code)
        trial = held(what, folder, overrides, expected) if not wrong else Trial(what, wrong)
        yield Trial(f"{what} (exit {code})", trial.lost, kind)


def _taken(folder: Path, overrides: list[str]) -> tuple[int, int]:
    """Bytes of addresses of a run when it begins, and at most."""

    def begin() -> None:
        before = _status("VmSize")
        atexit.register(lambda: (folder / "taken").write_text(f"{before} {_status('VmPeak')}"))

    code = ended(forked(folder, overrides, begin))
    assert code == 0, f"measured run: exit {code}"
    least, most = (folder / "taken").read_text(encoding="utf-8").split()
    return int(least), int(most)


def _status(key: str) -> int:
    (line,) = (
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if key in line
    )
    return 1024 * int(line.split()[1])


def _limit(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _fork(folder: Path, overrides: list[str], size: int) -> int:
    return ended(forked(folder, overrides, _limit(size)))


def _process(folder: Path, overrides: list[str], size: int) -> int:
    folder.mkdir(parents=True)
    with (folder / LOG).open("wb") as log:
        return subprocess.run(
            [sys.executable, "-m", "distil", "run", *overrides, "output_dir=outputs"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=_limit(size),
            timeout=120,
            check=False,
        ).returncode


def _how_it_ended(folder: Path, code: int) -> tuple[str, str]:
    """``told``, ``aborted`` by a native library, or ``enough``; and what is wrong with it."""
    said = " ".join((folder / LOG).read_text(encoding="utf-8", errors="replace").split())
    if code == 0:
        return "enough", ""
    spoken = any(words in said for words in WORDS)
    if code < 0 or (NATIVE.search(said) and not spoken):
        return "aborted natively", "" if code in (-6, -11, 1, 127) else f"failed: exit {code}: {said[-300:]}"
    if "Traceback" in said:
        return "told", f"failed: a traceback: {said[-300:]}"
    told = code in (1, 2) and spoken
    return "told", "" if told else f"failed: exit {code}: {said[-300:]}"
