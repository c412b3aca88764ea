"""Run again all that the docs show: README's commands, presets, examples, notebooks and benchmarks.

    python scripts/rehearse.py --data FOLDER             # as they stand: hours; makes benchmarks/results anew
    python scripts/rehearse.py --data FOLDER --quick     # each in small, tables below outputs/: does it run?
    python scripts/rehearse.py presets examples          # some of them
    python scripts/rehearse.py --list                    # what would run, what not, and why

Commands are read where users read them: in the first lines of a preset, in the docstring of a benchmark.
FOLDER holds small real models and texts (``models/stories260K``, ``tinystories``, ``dolly``); without it,
what needs one is left out, and said so. What each command says goes to ``outputs/rehearsal/``. One that
passed on the same code and the same FOLDER is not run again: stopped, the same command goes on. Exit 1 where
one failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "outputs" / "rehearsal"
BEFORE = "5f87803"
"""The revision that docs/performance.md holds a real pair's step against."""
EVAL_ROWS = "data.max_eval_rows=4 eval.during_training_rows=4"
SMALL_ROWS = f"{EVAL_ROWS} eval.generation_rows=2 eval.max_new_tokens=8"
SMALL_STEPS = "trainer.max_steps=2 trainer.warmup_steps=0 trainer.eval_steps=2"
SMALL_RUN = f"{SMALL_STEPS} trainer.per_device_train_batch_size=2 {SMALL_ROWS}"
APART = "output_dir=outputs/rehearsal/runs"
APART_TABLE = "--output outputs/rehearsal/tables"
APART_RUNS = "--runs outputs/rehearsal/runs"
SMALL_BENCHMARK = {
    "adapters": f"{SMALL_RUN} --adapters qlora {APART_RUNS}",
    "cache_fidelity": "--count 4",
    "cache_quality": f"trainer.warmup_steps=0 --rows 32 --steps 2 --eval-rows 8 --seeds 0 {APART_RUNS}",
    "cache_sweep": f"trainer.warmup_steps=0 data.max_train_rows=32 {EVAL_ROWS} --steps 2 {APART_RUNS}",
    "forgetting": f"trainer.warmup_steps=0 {EVAL_ROWS} --train-rows 64 --steps 2 4 {APART_RUNS}",
    "kd_against_sft": f"{SMALL_RUN} --seeds 0 {APART_RUNS}",
    "packing": f"trainer.per_device_train_batch_size=2 --steps 2 {APART_RUNS}",
    "precision": "--rounds 1",
    "real_pair": "--steps 2",
    "rollouts": "--rounds 1",
    "startup": "--rounds 1",
    "step": "--rounds 1 --sizes 32k --objectives JSD --allocators default",
    "stories": f"trainer.warmup_steps=0 trainer.eval_steps=2 {EVAL_ROWS} --steps 4 {APART_RUNS}",
    "trainers": "--rounds 1 --steps 2 --vocabulary 512 --batch 2 --allocators default",
}
"""What makes each small."""
HUB = "downloads gigabytes from the hub"
ELSEWHERE = {
    "python run.py model=gpt2 data=dolly15k": HUB,
    "python run.py model=qwen data=dolly15k": HUB,
    "python run.py -m hydra/launcher=cluster_slurm seed=0,1,2": "wants a Slurm cluster",
    "accelerate launch --config_file conf/accelerate/fsdp2.yaml run.py": "wants several GPUs",
    "accelerate launch --config_file conf/accelerate/zero3.yaml run.py": "wants several GPUs",
}
"""What is shown and not run, and why."""
MADE = (":!benchmarks/results", ":!notebooks/*.ipynb")
"""What the commands themselves write into the tree."""
PARTS = ("readme", "examples", "notebooks", "presets", "benchmarks")


@dataclass(frozen=True)
class Command:
    """A command as the docs show it, what makes it small, and why it does not run here, if so."""

    part: str
    words: str
    small: str
    elsewhere: str = ""

    def line(self, quick: bool, data: Path | None) -> str:
        """What the shell is given. FOLDER is a word of the docs, for a place of the reader's."""
        line = f"{self.words} {self.small}" if quick else self.words
        if data is not None:
            line = line.replace("data.path=FOLDER", f"data.path={data / 'dolly'}")
            line = line.replace("--data FOLDER", f"--data {data / 'dolly'}").replace(
                "../shared/data", str(data)
            )
        return re.sub(r"\bpython\b", shlex.quote(sys.executable), line)

    def left_out(self, data: Path | None) -> str:
        """Why it does not run; empty where it does."""
        reads = "FOLDER" in self.words or "../shared/data" in self.words
        return self.elsewhere or ("no --data" if reads and data is None else "")


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
        words = next((line for line in lines if "FOLDER" in line), lines[0])
        seeds = "seed=0 " if " -m " in words else ""
        yield Command("presets", words, f"{SMALL_RUN} {seeds}{APART}")
    for path in sorted((ROOT / "conf" / "debug").glob("*.yaml")):
        yield Command("presets", f"python run.py debug={path.stem}", f"{SMALL_RUN} {APART}")
    for path in sorted((ROOT / "conf" / "sweep").glob("*.yaml")):
        # A space of keys for the reader's own pair: in small always.
        words = f"python run.py -m sweep={path.stem} model=embedded_pruned {SMALL_RUN}"
        yield Command("presets", words, APART)
    for path in sorted((ROOT / "conf" / "hydra").glob("*/*.yaml")):
        words = shown(path, r"run\.py")[0]
        if path.stem not in " ".join(ELSEWHERE):
            few = "hydra.sweeper.trials=1" if path.parent.name == "sweeper" else f"name={path.stem}"
            yield Command("presets", words, f"{SMALL_RUN} {few} {APART}")


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
        *(Command("presets", words, "", why) for words, why in ELSEWHERE.items()),
    ]


def state(data: Path | None) -> dict[str, str]:
    """What a pass is a pass of: the commit, what was changed since, and the folder of data."""

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout

    changes = hashlib.sha256(git("diff", "HEAD", "--", ".", *MADE))
    for name in sorted(git("ls-files", "-oz", "--exclude-standard", "--", ".", *MADE).split(b"\0")[:-1]):
        changes.update(name + (ROOT / os.fsdecode(name)).read_bytes())
    return {
        "commit": git("rev-parse", "HEAD").decode().strip(),
        "changes": changes.hexdigest(),
        "data": str(data or ""),
    }


class Record:
    """What passed, and on what; written after each command."""

    def __init__(self, path: Path, on: dict[str, str]) -> None:
        self.path, self.on = path, on
        read = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.passed: dict[str, float] = read.get("seconds", {}) if read.get("on") == on else {}

    def add(self, words: str, seconds: float) -> None:
        """A command passed."""
        self.passed[words] = round(seconds, 1)
        self.path.write_text(json.dumps({"on": self.on, "seconds": self.passed}, indent=1) + "\n", "utf-8")


def run(line: str, log: Path) -> int:
    """The exit code; what it said goes to ``log``."""
    with log.open("w", encoding="utf-8") as file:
        file.write(f"$ {line}\n")
        file.flush()
        # What `make rehearse` was given is not for a `make` below it.
        environment = {k: v for k, v in os.environ.items() if k != "ARGS" and not k.startswith("MAKE")}
        environment["PYTHONPATH"] = str(ROOT)
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
    parser.add_argument("--list", action="store_true", help="show the commands, run none")
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
    wanted = [command for command in commands() if not asked.parts or command.part in asked.parts]
    left_out = {c.words: why for c in wanted if (why := c.left_out(asked.data))}
    runs = [command for command in wanted if command.words not in left_out]
    failed = False
    if asked.list:
        for command in runs:
            print(command.line(asked.quick, asked.data))
    else:
        failed = rehearse(runs, asked.quick, asked.data)
    for words, why in left_out.items():
        print(f"left out, {why}: {words}")
    return 1 if failed else 0


def rehearse(commands: list[Command], quick: bool, data: Path | None) -> bool:
    """Run these; whether one failed."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    record = Record(OUTPUT / ("quick.json" if quick else "whole.json"), state(data))
    failed = []
    for number, command in enumerate(commands, 1):
        print(f"{number:2}/{len(commands)}  {command.words} … ", end="", flush=True)
        if command.words in record.passed:
            print(f"passed before, {record.passed[command.words]:.0f} s", flush=True)
            continue
        log, start = OUTPUT / f"{number:02d}-{command.part}.log", time.monotonic()
        code = run(command.line(quick, data), log)
        seconds = time.monotonic() - start
        if code:
            failed.append(command.words)
            print(f"exit {code}, see {log}", flush=True)
        else:
            record.add(command.words, seconds)
            print(f"{seconds:.0f} s", flush=True)
    passed = [record.passed[c.words] for c in commands if c.words in record.passed]
    print(f"{len(passed)} of {len(commands)} passed in {sum(passed) / 60:.0f} min, {len(failed)} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
