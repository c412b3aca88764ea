"""A disk that is full or fails from the n-th file operation of a run on, and is mended thereafter."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.chaos.hook import Boundaries, Strike
from scripts.chaos.runs import LOG, ended, forked
from scripts.chaos.trials import BRIEF, Trial, held, operations_of, peaceful

SIZE = "32m"
"""Of the file system of a run whose disk fills up."""
BALLAST = "ballast"
CASES = (
    BRIEF,
    [*BRIEF[1:], "method=kd", "teacher_cache=topk", "teacher_cache.k=8", "tracker=tensorboard"],
    [*BRIEF[1:], "method=kd", "teacher_cache=hidden", "tracker=wandb", "tracker.log_report=true"],
)
"""Runs that differ in what they write; W&B's offline."""
STAGES = {
    "cache": re.compile(r"\.(teacher_cache|evaluations)\b"),
    "checkpoint": re.compile(r"/checkpoints\b"),
    "tracker": re.compile(r"/(tensorboard|wandb)\b"),
    "report": re.compile(r"report\.html"),
    "run": re.compile(""),
}
"""What an operation is of, by its path; the first that is found."""
WAYS_OUT = {
    "full": ("free some space", "is the disk full, or does it fail?"),
    "failing": ("Input/output error",),
}
"""What a run must say, one of them, that did not end well."""
ELSEWHERE = "Give another output_dir="
"""No way out of a run that is there: it would begin anew."""


def scarce(root: Path, base: list[str], how: str, *, sample: int | None, seed: int) -> Iterator[Trial]:
    """Fill the disk (``full``), or fail every file operation (``failing``), from the n-th on; ask again while
    it is so; mend; go on. ``sample`` points are spread evenly over STAGES."""
    import wandb  # noqa: F401  # once for all forks
    from torch.utils import tensorboard  # noqa: F401

    os.environ["WANDB_MODE"] = "offline"
    runs = [[*base, *case] for case in CASES]
    operations, expected = [], []
    for number, overrides in enumerate(runs):
        expected.append(peaceful(root / f"peace-{number}", overrides)[0])
        operations.append(operations_of(root / f"operations-{number}", overrides))
    for stage, number, at in _spread(operations, sample, seed):
        folder = root / f"case-{number}-at-{at}"
        with _disk(folder / "outputs") if how == "full" else _folder(folder / "outputs"):
            wrong, codes = _struck(folder, runs[number], at, how)
            (folder / "outputs" / BALLAST).unlink(missing_ok=True)
            what = f"{how} from {operations[number][at - 1]} on (exits {codes})"
            trial = Trial(what, wrong) if wrong else held(what, folder, runs[number], expected[number])
        if not trial.lost:  # else its log is there to read
            shutil.rmtree(folder, ignore_errors=True)
        yield Trial(trial.what, trial.lost, stage)


def _spread(operations: list[list[str]], sample: int | None, seed: int) -> list[tuple[str, int, int]]:
    """Stage, case and number of each operation, or of ``sample`` of them: of each stage in turn."""
    found: dict[str, list[tuple[str, int, int]]] = {stage: [] for stage in STAGES}
    for number, lines in enumerate(operations):
        for at, line in enumerate(lines, start=1):
            stage = next(stage for stage, pattern in STAGES.items() if pattern.search(line))
            found[stage].append((stage, number, at))
    chance, chosen = random.Random(seed), list[tuple[str, int, int]]()
    for points in found.values():
        chance.shuffle(points)
    while any(found.values()) and (sample is None or len(chosen) < sample):
        chosen += [points.pop() for points in found.values() if points]
    return sorted(chosen[:sample], key=lambda point: point[1:])


def _struck(folder: Path, overrides: list[str], at: int, how: str) -> tuple[str, list[int]]:
    """What is wrong with how the run ended, and the same command given at once again; their exit codes."""
    codes = list[int]()
    for first in (at, 1):
        begun = any((folder / "outputs").glob("*/*/status.json"))
        strike = _filler(folder / "outputs") if how == "full" else _failure
        log = f"{LOG}-{len(codes)}"
        try:
            codes.append(ended(forked(folder, overrides, _hooked(folder, first, strike), log=log)))
        except TimeoutError as error:
            return f"failed: {error}", codes
        said = " ".join((folder / log).read_text(encoding="utf-8", errors="replace").split())
        if wrong := _ended_badly(said, codes[-1], WAYS_OUT[how]):
            return wrong, codes
        if begun and ELSEWHERE in said:
            return f"failed: it says {ELSEWHERE!r} of a run that is there", codes
    return "", codes


def _hooked(folder: Path, at: int, strike: Strike) -> Callable[[], None]:
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
        descriptor = os.open(outputs / BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    os.write(descriptor, b"x" * size)
            except OSError:
                continue
        os.close(descriptor)

    return fill


def _ended_badly(said: str, code: int, ways_out: tuple[str, ...]) -> str:
    """What is wrong with how the struck run ended: it says what happened, in words, and nothing hangs."""
    if "Traceback" in said:
        return f"failed: a traceback: {said[-300:]}"
    if code not in (0, 1, 2):
        return f"failed: exit {code}: {said[-300:]}"
    if code and not any(words.lower() in said.lower() for words in ways_out):
        return f"failed: exit {code} without a way out: {said[-300:]}"
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
