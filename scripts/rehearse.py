"""Run again all that the docs show: README's commands, presets, examples, notebooks and benchmarks.

    python scripts/rehearse.py --data FOLDER             # as they stand: hours; makes benchmarks/results anew
    python scripts/rehearse.py --data FOLDER --quick     # each in small, tables below outputs/: does it run?
    python scripts/rehearse.py presets examples          # some of them

Commands are read where users read them: in the first lines of a preset, in the docstring of a benchmark.
FOLDER holds small real models and texts (``models/stories260K``, ``tinystories``, ``dolly``); without it,
what needs one is left out, and said so. What each command says goes to ``outputs/rehearsal/``. One that
passed at this commit is not run again: stopped, the same command goes on. Exit 1 where one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "outputs" / "rehearsal"
BEFORE = "5f87803"
"""The revision that docs/performance.md holds a real pair's step against."""
SMALL_ROWS = "data.max_eval_rows=8 eval.generation_rows=2 eval.max_new_tokens=8 eval.during_training_rows=4"
SMALL_RUN = f"trainer.max_steps=4 trainer.warmup_steps=0 trainer.eval_steps=4 {SMALL_ROWS}"
APART = "output_dir=outputs/rehearsal/runs"
APART_TABLE = "--output outputs/rehearsal/tables"
APART_RUNS = "--runs outputs/rehearsal/runs"
SMALL_BENCHMARK = {
    "adapters": f"{SMALL_RUN} {APART_RUNS}",
    "cache_fidelity": "--count 4",
    "cache_quality": f"--rows 32 --steps 2 --eval-rows 8 --seeds 0 {APART_RUNS}",
    "cache_sweep": f"--steps 2 {APART_RUNS}",
    "forgetting": f"{SMALL_ROWS} --train-rows 64 {APART_RUNS}",
    "kd_against_sft": f"{SMALL_RUN} {APART_RUNS}",
    "packing": f"--steps 2 {APART_RUNS}",
    "precision": "--rounds 1",
    "real_pair": "--steps 2",
    "rollouts": "--rounds 1",
    "startup": "--rounds 1",
    "step": "--rounds 1 --sizes 32k --objectives JSD --allocators default",
    "stories": f"--steps 4 {APART_RUNS}",
    "trainers": "--rounds 1 --steps 2 --vocabulary 512 --batch 2 --allocators default",
}
"""What makes each small."""
PARTS = ("readme", "examples", "notebooks", "presets", "benchmarks")


@dataclass(frozen=True)
class Command:
    """A command as the docs show it, and what makes it small."""

    part: str
    words: str
    small: str

    def line(self, quick: bool, data: Path | None) -> str:
        """What the shell is given. FOLDER is a word of the docs, for a place of the reader's."""
        line = f"{self.words} {self.small}" if quick else self.words
        if data is not None:
            line = line.replace("data.path=FOLDER", f"data.path={data / 'dolly'}")
            line = line.replace("--data FOLDER", f"--data {data / 'dolly'}").replace(
                "../shared/data", str(data)
            )
        return re.sub(r"\bpython\b", shlex.quote(sys.executable), line)

    @property
    def needs_data(self) -> bool:
        """Whether it reads local models or rows."""
        return "FOLDER" in self.words or "../shared/data" in self.words


def shown(path: Path, start: str) -> list[str]:
    """The commands that a file's first lines show, without the remarks beside them."""
    head = (
        path.read_text(encoding="utf-8").split('"""')[1] if path.suffix == ".py" else path.read_text("utf-8")
    )
    lines = re.findall(rf"^#?\s+((?:OMP_NUM_THREADS=1 )?python {start}.*)$", head, re.MULTILINE)
    return [re.split(r"\s+#|\s{2,}", line)[0].replace("[", "").replace("]", "") for line in lines]


def presets() -> Iterator[Command]:
    """One command of each preset; of several the one that reads local rows, else the first."""
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        lines = shown(path, r"run\.py")
        yield Command(
            "presets", next((line for line in lines if "FOLDER" in line), lines[0]), f"{SMALL_RUN} {APART}"
        )
    for path in sorted((ROOT / "conf" / "debug").glob("*.yaml")):
        yield Command("presets", f"python run.py debug={path.stem}", f"{SMALL_RUN} {APART}")
    for path in sorted((ROOT / "conf" / "sweep").glob("*.yaml")):
        # A space of keys for the reader's own pair: in small always.
        words = f"python run.py -m sweep={path.stem} model=embedded_pruned {SMALL_RUN}"
        yield Command("presets", words, APART)


def benchmarks() -> Iterator[Command]:
    """The commands of each benchmark, but for those that take a file of the reader's own."""
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        if "__main__" not in path.read_text(encoding="utf-8"):
            continue
        lines = shown(path, "benchmarks/") or [f"OMP_NUM_THREADS=1 python benchmarks/{path.name}"]
        for line in lines:
            if "FILE" not in line:
                small = f"{SMALL_BENCHMARK[path.stem]} {APART_TABLE}"
                yield Command("benchmarks", line.replace("REVISION", BEFORE), small)


def commands() -> list[Command]:
    """All of them, in the order in which they run."""
    examples = (
        f"python {path.relative_to(ROOT)} --local" for path in sorted((ROOT / "examples").glob("*.py"))
    )
    return [
        Command("readme", "make run", f"ARGS='{SMALL_RUN} {APART}'"),
        Command("readme", "make smollm2", ""),
        *(Command("examples", line, "--rows 32") for line in examples),
        Command("notebooks", "python scripts/make_notebooks.py", ""),
        *presets(),
        *benchmarks(),
    ]


class Record:
    """What passed, at which commit; written after each command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.commit = done.stdout.strip()
        read = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.passed: dict[str, float] = read.get("seconds", {}) if read.get("commit") == self.commit else {}

    def add(self, words: str, seconds: float) -> None:
        """A command passed."""
        self.passed[words] = round(seconds, 1)
        self.path.write_text(
            json.dumps({"commit": self.commit, "seconds": self.passed}, indent=1) + "\n", "utf-8"
        )


def run(line: str, log: Path) -> int:
    """The exit code; what it said goes to ``log``."""
    with log.open("w", encoding="utf-8") as file:
        file.write(f"$ {line}\n")
        file.flush()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            line, shell=True, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode


def parse() -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all if not given")
    parser.add_argument("--data", type=Path, help="a folder of small real models and texts")
    parser.add_argument("--quick", action="store_true", help="each in small: minutes, not hours")
    asked = parser.parse_args()
    unknown = sorted(set(asked.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}. There are {', '.join(PARTS)}.")
    if asked.data is not None and not asked.data.is_dir():
        parser.error(f"--data {asked.data}: no such folder.")
    asked.data = asked.data and asked.data.resolve()
    return asked


def main() -> int:
    """Run what is asked for, one line each, and count."""
    asked = parse()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    record = Record(OUTPUT / ("quick.json" if asked.quick else "whole.json"))
    count = Counter[str]()
    wanted = [command for command in commands() if not asked.parts or command.part in asked.parts]
    for number, command in enumerate(wanted, 1):
        print(f"{number:2}/{len(wanted)}  {command.words} … ", end="", flush=True)
        if command.needs_data and asked.data is None:
            end, word = "left out", "left out: no --data"
        elif command.words in record.passed:
            end, word = "passed", "passed before"
        else:
            log, start = OUTPUT / f"{number:02d}-{command.part}.log", time.monotonic()
            code = run(command.line(asked.quick, asked.data), log)
            seconds = time.monotonic() - start
            end, word = ("failed", f"exit {code}, see {log}") if code else ("passed", f"{seconds:.0f} s")
            if not code:
                record.add(command.words, seconds)
        count[end] += 1
        print(word, flush=True)
    print(
        f"{count['passed']} of {len(wanted)} passed, {count['failed']} failed, {count['left out']} left out"
    )
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
