"""Runs of the real command for the benchmarks, and what they came to."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def run(*overrides: str, output: Path, root: Path = ROOT) -> Path:
    """``python run.py`` with these overrides; its run directory. A run that is done is not run again.

    ``root``: the checkout whose code runs.
    """
    command = [sys.executable, str(root / "run.py"), f"output_dir={output}", *overrides]
    print(" ", " ".join(overrides), file=sys.stderr, flush=True)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    asked = set(command[2:])
    return next(path.parent for path in output.glob("*/*/status.json") if _did(path, asked))


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


def machine() -> str:
    """One line that says where the figures were made."""
    import platform

    import torch
    import transformers

    return (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} thread(s), "
        f"torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )
