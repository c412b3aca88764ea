"""What is tried: runs killed, raced, damaged, each finished by the same command and held to one in peace."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from distil.engine.checkpoints import MANIFEST, published, verify
from scripts.chaos.hook import Boundaries
from scripts.chaos.runs import LOG, Case, cases, differing, ended, finished, forked, outcome

BRIEF = [
    "method=gkd",
    "trainer.max_steps=3",
    "trainer.save_total_limit=1",
    "trainer.dataloader_num_workers=0",
]
"""Two saves, a rotation, the product."""


@dataclass(frozen=True)
class Trial:
    """One disturbance and what became of the run."""

    what: str
    lost: str
    """Empty: it ended bit-equal. Else what went wrong."""
    kind: str = ""
    """What of the run was hit, or how it ended."""

    @property
    def silent(self) -> bool:
        """Whether nobody would have noticed."""
        return self.lost.startswith("differs")


def held(
    what: str, folder: Path, overrides: list[str], expected: dict[str, bytes], said: str | None = None
) -> Trial:
    """Give the same command again, to the end, and compare. The folder is removed where all is well.

    ``said``: what the run must have told.
    """
    try:
        finished(folder, overrides)
        different = differing(folder, expected)
    except (RuntimeError, TimeoutError) as error:
        return Trial(what, f"failed: {error}")
    if different:
        return Trial(what, f"differs: {', '.join(different)}")
    if said is not None and said not in " ".join((folder / LOG).read_text(encoding="utf-8").split()):
        return Trial(what, f"differs: nothing was said of {said!r}")
    shutil.rmtree(folder, ignore_errors=True)  # a disk may be mounted in it
    return Trial(what, "")


def peaceful(folder: Path, overrides: list[str]) -> tuple[dict[str, bytes], float]:
    """What an undisturbed run comes to, and the seconds it takes."""
    began = time.monotonic()
    finished(folder, overrides)
    return outcome(folder), time.monotonic() - began


def boundaries(root: Path, base: list[str], *, power: bool, sample: int | None, seed: int) -> Iterator[Trial]:
    """Kill before the n-th file operation of a whole run, for every n or ``sample`` of them.

    ``power``: what was not synced is lost as well.
    """
    overrides = [*base, *BRIEF]
    expected, _ = peaceful(root / "peace", overrides)
    operations = operations_of(root, overrides)
    for at in points(operations, sample, seed):
        folder = root / f"at-{at}"
        what = f"{'power cut' if power else 'kill'} before {operations[at - 1]}"
        code = ended(forked(folder, overrides, _hooked(folder, at, power)))
        if code != -signal.SIGKILL:
            yield Trial(what, f"failed: not killed, exit {code}")
            continue
        yield held(what, folder, overrides, expected)


def points(operations: list[str], sample: int | None, seed: int) -> list[int]:
    """The numbers of all operations, from 1 on, or of ``sample`` of them."""
    numbers = list(range(1, len(operations) + 1))
    if sample is None or sample >= len(numbers):
        return numbers
    return sorted(random.Random(seed).sample(numbers, sample))


def operations_of(root: Path, overrides: list[str]) -> list[str]:
    """A line for each file operation of a run in peace."""
    names = root / "operations"
    begin = _hooked(root / "counted", None, False, names)
    code = ended(forked(root / "counted", overrides, begin))
    assert code == 0, f"counted run: exit {code}"
    return names.read_text(encoding="utf-8").splitlines()


def _hooked(folder: Path, at: int | None, power: bool, names: Path | None = None) -> Callable[[], None]:
    return lambda: Boundaries(folder / "outputs", at, power=power, names=names).install()


def kills(root: Path, base: list[str], *, count: int, seed: int) -> Iterator[Trial]:
    """kill -9 at random moments over methods x adapters; each run is killed several times, then finished."""
    chance = random.Random(seed)
    chosen = cases()
    chance.shuffle(chosen)
    share, more = divmod(count, len(chosen))
    for number, case in enumerate(chosen):
        times = share + (number < more)
        if times:
            yield from _killed(root / f"case-{number}", [*base, *case.overrides], case, times, chance)


def _killed(
    folder: Path, overrides: list[str], case: Case, times: int, chance: random.Random
) -> Iterator[Trial]:
    expected, seconds = peaceful(folder / "peace", overrides)
    disturbed = folder / "disturbed"
    said: list[str] = []
    while len(said) < times:
        child = forked(disturbed, overrides)
        try:
            ended(child, timeout=chance.uniform(0, 0.9 * seconds))
        except TimeoutError:
            said.append(f"{case.name}: killed {_state(disturbed)}")
        else:  # it was quicker: the next begins anew
            trial = held(f"{case.name}: after {len(said)} kills", disturbed, overrides, expected)
            if trial.lost:
                yield trial
                return
    last = held(said[-1], disturbed, overrides, expected)
    yield from [Trial(each, "") for each in said[:-1]]
    yield last
    if not last.lost:
        shutil.rmtree(folder)


def _state(folder: Path) -> str:
    """How far a killed run had come."""
    saved = [path for root in folder.glob("outputs/*/*/checkpoints") for path in published(root)]
    return f"after {saved[-1].name}" if saved else "before its first checkpoint"


def races(root: Path, base: list[str], *, count: int, seed: int) -> Iterator[Trial]:
    """The same command twice and another run beside it, at one moment, with one teacher cache for all."""
    chance = random.Random(seed)
    shared = [*base, "method=kd", "teacher_cache=topk", "teacher_cache.k=8", "trainer.max_steps=2"]
    runs = {"seed=0": [*shared, "seed=0"], "seed=1": [*shared, "seed=1"]}
    expected = {name: peaceful(root / f"peace {name}", words)[0] for name, words in runs.items()}
    for number in range(count):
        folder, trial = root / f"race-{number}", f"race {number + 1}"
        started = []
        for words in (runs["seed=0"], runs["seed=0"], runs["seed=1"]):
            started.append(forked(folder, words))
            time.sleep(chance.choice((0.0, 0.0, chance.uniform(0, 0.5))))
        codes = [ended(child) for child in started]
        yield _raced(trial, folder, codes, expected)


def _raced(what: str, folder: Path, codes: list[int], expected: dict[str, dict[str, bytes]]) -> Trial:
    if codes != [0, 0, 0]:
        said = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-4:]
        return Trial(what, f"failed: exits {codes}: {' / '.join(said)}")
    for name, wanted in expected.items():
        run = folder / "outputs" / "default"
        apart = folder / name
        (mine,) = run.glob(f"*-{name.replace('seed=', 's')}-*")
        (apart / "outputs" / "default").mkdir(parents=True)
        mine.rename(apart / "outputs" / "default" / mine.name)
        if different := differing(apart, wanted):
            return Trial(what, f"differs: {name}: {', '.join(different)}")
    left = [path.name for path in folder.rglob(".*") if path.suffix in (".lock", ".partial")]
    if left:
        return Trial(what, f"failed: left over: {', '.join(left)}")
    shutil.rmtree(folder)
    return Trial(what, "")


def damages(root: Path, base: list[str], *, flips: int, seed: int) -> Iterator[Trial]:
    """Every file of the newest checkpoint removed, cut and flipped, then the run goes on; and flips that are
    only looked for, spread over all its files."""
    chance = random.Random(seed)
    overrides = [*base, *BRIEF, "trainer.max_steps=4", "trainer.save_total_limit=2"]
    expected, _ = peaceful(root / "peace", overrides)
    stopped = _stopped_at(root / "stopped", overrides, step=3)
    (checkpoints,) = stopped.glob("outputs/*/*/checkpoints")
    newest = published(checkpoints)[-1]
    assert verify(newest) == []
    files = sorted(path.relative_to(newest) for path in newest.rglob("*") if path.is_file())
    for number in range(flips):
        yield _flip_is_found(newest, files[number % len(files)], chance)
    for file in files:
        for how in ("removed", "emptied", "cut in half", "one bit flipped"):
            folder = root / "damaged"
            shutil.copytree(stopped, folder)
            (folder / LOG).unlink()
            _damage(folder / newest.relative_to(stopped) / file, how, chance)
            # A bit of the manifest may be one of another file's name, size or hash: that file is named then.
            told = f"{newest.name} is damaged (" + ("" if file.name == MANIFEST else f"{file} ")
            trial = held(f"{file} {how}", folder, overrides, expected, told)
            shutil.rmtree(folder, ignore_errors=True)
            yield trial


def _stopped_at(folder: Path, overrides: list[str], step: int) -> Path:
    """A run that was killed right after the checkpoint of ``step``."""
    child = forked(folder, overrides)
    while not list(folder.glob(f"outputs/*/*/checkpoints/checkpoint-{step}")):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (checkpoints,) = folder.glob("outputs/*/*/checkpoints")
    for later in published(checkpoints):
        if int(later.name.partition("-")[2]) > step:
            shutil.rmtree(later)
    return folder


def _flip_is_found(newest: Path, file: Path, chance: random.Random) -> Trial:
    whole = (newest / file).read_bytes()
    position, bit = chance.randrange(len(whole)), chance.randrange(8)
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    (newest / file).write_bytes(damaged)
    problems = verify(newest)
    (newest / file).write_bytes(whole)
    return Trial(f"bit {bit} of byte {position} of {file} flipped", "" if problems else "differs: not found")


def _damage(file: Path, how: str, chance: random.Random) -> None:
    if how == "removed":
        file.unlink()
        return
    whole = bytearray(file.read_bytes())
    if how == "one bit flipped":
        whole[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    file.write_bytes(whole[: {"emptied": 0, "cut in half": len(whole) // 2}.get(how, len(whole))])


def save(trials: list[Trial], path: Path) -> None:
    """All trials as JSON."""
    path.write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n", encoding="utf-8")
