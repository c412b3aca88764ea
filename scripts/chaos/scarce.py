"""A disk that is full or fails from the n-th file operation of a run on, and is mended thereafter."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.chaos.hook import Boundaries, Strike
from scripts.chaos.runs import LOG, ended, forked
from scripts.chaos.trials import BRIEF, Trial, held, operations_of, peaceful, points

SIZE = "32m"
"""Of the file system of a run whose disk fills up."""
BALLAST = "ballast"
WORDS = {
    "full": ("disk is full", "No space left", "is the disk full"),
    "failing": ("Input/output error", "is the disk full"),
}
"""What the run must say."""


def scarce(root: Path, base: list[str], how: str, *, sample: int | None, seed: int) -> Iterator[Trial]:
    """Fill the disk (``full``), or fail every file operation (``failing``), from the n-th on; mend; go on."""
    overrides = [*base, *BRIEF]
    expected, _ = peaceful(root / "peace", overrides)
    operations = operations_of(root, overrides)
    for at in points(operations, sample, seed):
        folder = root / f"at-{at}"
        with _disk(folder / "outputs") if how == "full" else _folder(folder / "outputs"):
            strike = _filler(folder / "outputs") if how == "full" else _failure
            code = ended(forked(folder, overrides, _struck(folder, at, strike)))
            (folder / "outputs" / BALLAST).unlink(missing_ok=True)
            what = f"{how} from {operations[at - 1]} on (exit {code})"
            wrong = _ended_badly(folder, code, WORDS[how])
            trial = Trial(what, wrong) if wrong else held(what, folder, overrides, expected)
        if not trial.lost:  # else its log is there to read
            shutil.rmtree(folder, ignore_errors=True)
        yield trial


def _struck(folder: Path, at: int, strike: Strike) -> Callable[[], None]:
    return lambda: Boundaries(folder / "outputs", at, power=False, strike=strike).install()


def _failure(path: str) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), path)


def _filler(outputs: Path) -> Strike:
    """Takes all room that is left on the disk of ``outputs``, at its first call."""
    full = False

    def fill(_path: str) -> None:
        nonlocal full
        if full:
            return
        full = True
        descriptor = os.open(outputs / BALLAST, os.O_WRONLY | os.O_CREAT)
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    os.write(descriptor, b"x" * size)
            except OSError:
                continue
        os.close(descriptor)

    return fill


def _ended_badly(folder: Path, code: int, words: Sequence[str]) -> str:
    """What is wrong with how the struck run ended: it says what happened, in words, and nothing hangs."""
    said = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    if "Traceback" in said:
        return f"failed: a traceback: {said.strip().splitlines()[-1]}"
    if code not in (0, 1, 2):
        return f"failed: exit {code}"
    if code and not any(word in " ".join(said.split()) for word in words):
        return f"failed: exit {code} without a word of it: {' '.join(said.split())[-200:]}"
    return ""


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    """A small file system of its own at ``place``."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def _folder(place: Path) -> Iterator[None]:
    place.mkdir(parents=True)
    yield
