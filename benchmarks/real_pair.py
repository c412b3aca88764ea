"""A step on a real pair: this revision beside an earlier one, and beside TRL's GKDTrainer.

    OMP_NUM_THREADS=1 python benchmarks/real_pair.py --data FOLDER --before REVISION

SmolLM2-135M-Instruct into 15 of its layers on Dolly, as ``experiment=smollm2_dolly`` has it: 8 rows of at
most 192 tokens, float32. First that very command, a few steps of it, in a checkout of each revision
(``cost.json`` says what a step took); then the trainers alone, off-policy JSD on the same rows from the same
weights, each in a process of its own, its first loss held to ours; TRL is left out where it is not installed
(``make peers`` brings it). ``--data``: Dolly as local files (without
it, from the hub). Writes ``benchmarks/results/real_pair.md``.
"""

from __future__ import annotations

import logging
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import peers
import torch
from packing import LEAST
from peers import Clock, Task, World
from runs import ROOT, cost, markdown, parser, run, status, write
from trainers import forked

from distil.config.schema import ExperimentConfig
from distil.parts import Parts, load_parts
from distil.products.finished_run import open_run
from distil.types import IGNORE_INDEX

JSD = Task("gkd", {"lambda_gkd": 1.0})
TRAINERS: dict[str, Callable[..., Callable[[], object]]] = {
    "ours": peers.ours,
    "TRL GKDTrainer": peers.trl_gkd,
}


class RealWorld(World):
    """A real pair and its first rows, in the words of ``peers``."""

    def __init__(self, parts: Parts, batch: int, steps: int, folder: Path) -> None:
        self.vocabulary, self.batch, self.steps, self.folder = parts.shared_vocabulary, batch, steps, folder
        self.teacher, self.student = parts.teacher, parts.student
        self.parts = parts

    def labelled(self, prompt: int) -> list[dict[str, Any]]:
        """The run's own rows; off-policy nobody reads a prompt, so all are of one length."""
        drawn = self.parts.splits.train.select(range(self.steps * self.batch)).to_list()
        return [
            {"input_ids": row["input_ids"], "labels": row["labels"], "prompt_ids": row["input_ids"][:1]}
            for row in drawn
        ]

    def tokenizer(self) -> Any:
        """The pair's."""
        return self.parts.tokenizer


def train(name: str, config: ExperimentConfig, batch: int, steps: int) -> dict[str, Any]:
    """Train in this process."""
    parts = load_parts(config, wants_teacher=True)
    with tempfile.TemporaryDirectory() as folder:
        world, clock = RealWorld(parts, batch, steps, Path(folder)), Clock()
        start = TRAINERS[name](world, JSD, clock)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        start()
        peak = status("VmHWM") - before
        tokens = sum(x != IGNORE_INDEX for row in world.labelled(0)[:batch] for x in row["labels"])
    seconds = [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)]
    return {
        "seconds": statistics.median(seconds),
        "peak": peak,
        "loss": clock.losses[0],
        "tokens": tokens,
    }


def command(data: Path | None, steps: int) -> list[str]:
    """The run's overrides."""
    where = [] if data is None else [f"data.path={data.resolve()}"]
    return ["experiment=smollm2_dolly", f"trainer.max_steps={steps}", *LEAST, *where]


def earlier(revision: str, overrides: list[str]) -> dict[str, Any]:
    """``cost.json`` of the same command in a checkout of another revision."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", checkout, revision], cwd=ROOT, check=True)
        try:
            return cost(run(*overrides, output=Path(folder) / "outputs", root=checkout))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)


def main() -> None:
    """Run all and write the tables."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a folder with Dolly's rows")
    options.add_argument("--before", help="a revision of this repository")
    options.add_argument("--steps", type=int, default=4)
    asked = options.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    overrides = command(asked.data, asked.steps)
    with tempfile.TemporaryDirectory() as folder:
        now = run(*overrides, output=Path(folder))
        costs = {"this revision": cost(now)}
        config = open_run(now).config
    if asked.before:
        costs = {asked.before: earlier(asked.before, overrides), **costs}
    whole = markdown(
        ["`experiment=smollm2_dolly`", "CPU seconds a step", "peak memory of the run, GB"],
        [
            [name, f"{facts['cpu_seconds_per_step']:.2f}", f"{facts['peak_memory_bytes'] / 1e9:.2f}"]
            for name, facts in costs.items()
        ],
    )
    batch = config.trainer.arguments()["per_device_train_batch_size"]
    missing = [name for name in TRAINERS if name.startswith("TRL") and find_spec("trl") is None]
    seen = {name: forked(train, name, config, batch, asked.steps) for name in TRAINERS if name not in missing}
    losses = [facts["loss"] for facts in seen.values()]
    if max(losses) / min(losses) - 1 > 1e-4:
        raise SystemExit(f"The first losses differ: {losses}. The work is not the same.")
    alone = markdown(
        ["off-policy JSD", "CPU seconds a step", "x ours", "peak above start, GB", "x ours"],
        [
            [
                name,
                f"{facts['seconds']:.2f}",
                f"{facts['seconds'] / seen['ours']['seconds']:.2f}",
                f"{facts['peak'] / 1e9:.2f}",
                f"{facts['peak'] / seen['ours']['peak']:.2f}",
            ]
            for name, facts in seen.items()
        ],
    )
    told = [f"Not installed, so left out: {', '.join(missing)}.\n"] if missing else []
    write(asked.output / "real_pair.md", "A step on a real pair", [whole, alone, *told])


if __name__ == "__main__":
    main()
