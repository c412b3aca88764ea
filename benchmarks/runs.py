"""What the benchmarks share: their options, runs of the real command, and the tables they write."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ALLOCATORS = {
    "default": "",
    "retaining": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000",
}
"""What glibc is told: half of what a large tensor costs may be page faults."""
PLACES = ("--output", "--runs")
"""Options that change no result."""


def parser(doc: str | None, *, runs: bool = False) -> argparse.ArgumentParser:
    """The options that all have; ``runs``: of a benchmark that is made of whole runs."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results", help="where the table goes"
    )
    if runs:
        made.add_argument(
            "--runs", type=Path, default=ROOT / "outputs" / "benchmarks", help="where the runs go"
        )
        made.add_argument(
            "overrides", nargs="*", metavar="key=value", help="of every run: trainer.max_steps=4"
        )
    return made


def command_line() -> str:
    """The command that is running, as anyone would type it: without where this machine's files lie."""
    words = [f"benchmarks/{Path(sys.argv[0]).name}"]
    places = False
    for word in sys.argv[1:]:
        key, found, value = word.rpartition("=")
        if places or word in PLACES or key in PLACES:
            places = word in PLACES
        elif Path(value).is_absolute():
            words.append(f"{key}{found}FOLDER")
        else:
            words.append(word)
    return shlex.join(["python", *words])


def made_by(command: str, machine: dict[str, str]) -> str:
    """The sentence below the title."""
    return f"Made by `{command}` on {', '.join(f'{key} {value}' for key, value in machine.items())}."


def write(target: Path, title: str, parts: Sequence[str]) -> None:
    """A page of results: what made it, then the parts; on the terminal too."""
    text = "\n".join([f"# {title}\n", f"{made_by(command_line(), machine())}\n", *parts])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(text)


def stories(data: Path) -> list[str]:
    """stories260K into its own layers 0, 2 and 4 on TinyStories: what all runs on that pair share."""
    model, texts = (data / "models" / "stories260K").resolve(), (data / "tinystories").resolve()
    if not model.is_dir() or not texts.is_dir():
        raise SystemExit(f"--data {data}: no models/stories260K and tinystories there.")
    return [
        f"model.teacher.path={model}",
        f"model.student.path={model}",
        "model.student.keep_layers=[0,2,4]",
        f"data.train_file={texts / 'train.jsonl'}",
        f"data.validation_file={texts / 'valid.jsonl'}",
        f"data.test_file={texts / 'test.jsonl'}",
        "data.max_length=256",
        "trainer.per_device_train_batch_size=16",
        "trainer.learning_rate=2e-3",
        "trainer.warmup_steps=50",
        "trainer.weight_decay=0.05",
        "trainer.adam_beta2=0.98",
        "trainer.lr_scheduler_type=cosine",
        "eval.metrics=[likelihood,agreement]",
        "eval.generation_rows=0",
    ]


def run(*overrides: str, output: Path, root: Path = ROOT) -> Path:
    """``python run.py`` with these overrides; its run directory. A run that is done is not run again.

    ``root``: the checkout whose code runs.
    """
    output = output.resolve()
    command = [sys.executable, str(root / "run.py"), f"output_dir={output}", *overrides]
    print(" ", " ".join(overrides), file=sys.stderr, flush=True)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    asked = set(command[2:])
    found = next((path.parent for path in output.glob("*/*/status.json") if _did(path, asked)), None)
    if found is None:
        raise SystemExit(f"{shlex.join(command)} ended well, but no run below {output} says that it was it.")
    return found


def _did(status: Path, asked: set[str]) -> bool:
    """Whether that run was started by these arguments and is done."""
    record: dict[str, str] = json.loads(status.read_text(encoding="utf-8"))
    return record["status"] == "done" and set(shlex.split(record["command"])[2:]) == asked


def results(folder: Path) -> dict[str, Any]:
    """``results.json`` of a run."""
    read: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return read


def cost(folder: Path) -> dict[str, Any]:
    """``cost.json`` of a run."""
    read: dict[str, Any] = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
    return read


def validation(folder: Path) -> list[tuple[int, float]]:
    """The validation curve: (step, NLL a token)."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(r["step"], r["validation/nll_per_token"]) for r in records if "validation/nll_per_token" in r]


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def status(key: str) -> int:
    """Bytes that the kernel counts under this key for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def machine(device: str = "cpu") -> dict[str, str]:
    """Where the figures were made."""
    import torch

    versions = {"torch": torch.__version__}
    for name in ("transformers", "trl", "liger-kernel"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cpu = next(
        (x.split(":")[1].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")),
        platform.processor(),
    )
    what = torch.cuda.get_device_name() if device == "cuda" else f"{cpu}, {torch.get_num_threads()} thread(s)"
    return {"device": what, "system": f"{platform.system()} {platform.machine()}", **versions}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
