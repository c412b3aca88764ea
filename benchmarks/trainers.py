"""Whole trainers: time and memory of a step beside TRL's, llm-distil's and a bare loop over our own head.

    make bench-peers

Random Llamas, teacher 4 layers x 256 and student 4 x 128, in float32 with AdamW; rows of 256 tokens, of which
64 are the prompt, or 64 sampled after such a prompt. Who is compared does the same work: the same rows in the
same order, the same objective, precision and optimizer, no gradient checkpointing. The first loss that each
reports is held to one written down naively for the sequences that it was seen to train on; what differs is
said below the table. Each trains in a process of its own, in turn, round by round. Time is the process's CPU
time from one optimizer step to the next, memory the high-water mark of the training above its start. All is
done twice: with the allocator as it is, and with one that keeps freed blocks. Peers that are not installed
are left out by name. Writes ``benchmarks/results/trainers.json`` and ``trainers.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import peers
import torch
from peers import LENGTH, NEW, PROMPT, TASKS, Clock, Start, Task, World, expected
from runs import ALLOCATORS, command_line, machine, made_by, markdown, parser, status

OURS, BARE = "ours", "bare loop"
SLOW = 3.0
"""Seconds a step from which a row runs in the first round alone: its spread does not decide anything."""


@dataclass(frozen=True)
class Row:
    """Somebody who trains, and on which tasks."""

    build: Callable[[World, Task, Clock], Start]
    tasks: tuple[str, ...]
    package: str = ""


ROWS = {
    OURS: Row(peers.ours, tuple(TASKS)),
    BARE: Row(peers.bare_loop, ("JSD", "JSD on-policy")),
    "TRL GKDTrainer": Row(peers.trl_gkd, ("JSD", "JSD on-policy"), "trl"),
    "TRL DistillationTrainer": Row(peers.trl_distillation, ("JSD on-policy",), "trl"),
    "llm-distil": Row(peers.llm_distil, ("KD", "RevKD"), "llm-distil"),
}
CELLS = [(name, task) for task in TASKS for name, row in ROWS.items() if task in row.tasks]


@dataclass(frozen=True)
class Known:
    """How a peer's loss is not the one asked for; the one that it reports is held to this."""

    why: str
    factor: float = 1.0
    past_the_end: bool = False


KNOWN = {
    ("TRL GKDTrainer", "JSD on-policy"): Known(
        f"it divides by the {LENGTH - PROMPT} labels of the data set's row, not by the {NEW} sampled tokens, "
        "so loss and gradient shrink with the length of a reference that is not trained on",
        factor=NEW / (LENGTH - PROMPT),
    ),
    **{
        ("llm-distil", task): Known(
            f"its divergence counts the position after the last token too, {LENGTH} for {LENGTH - 1}",
            past_the_end=True,
        )
        for task in ("KD", "RevKD")
    },
}


def installed(row: Row) -> bool:
    """Whether what the row needs is there."""
    if row.package == "llm-distil":
        return (peers.PEERS / "llm_distil").is_dir()
    return not row.package or find_spec(row.package) is not None


def train(cell: tuple[str, str], vocabulary: int, batch: int, steps: int) -> dict[str, Any]:
    """Train in this process: CPU seconds of the later steps, peak bytes, and what was trained on."""
    name, task = cell
    with tempfile.TemporaryDirectory() as folder:
        world, clock = World(vocabulary, batch, steps, Path(folder)), Clock()
        # One short row first: lazy imports are no part of a step.
        world.student(input_ids=torch.tensor(world.rows)[:1, :8]).logits.sum().backward()
        world.student.zero_grad()
        clock.watch(world.student)
        start = ROWS[name].build(world, TASKS[task], clock)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        start()
        peak = status("VmHWM") - before
    assert clock.ids_BT is not None
    return {
        "seconds": [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)],
        "peak": peak,
        "losses": clock.losses,
        "ids": clock.ids_BT.tolist(),
    }


def check(cell: tuple[str, str], vocabulary: int, batch: int, seen: dict[str, Any]) -> dict[str, float]:
    """Hold the first step to the work that was asked for. Raises ValueError where it was another."""
    name, task = cell
    with tempfile.TemporaryDirectory() as folder:
        world = World(vocabulary, batch, 1, Path(folder))
    ids_BT = torch.tensor(seen["ids"])
    asked = sorted(ids[: PROMPT if TASKS[task].on_policy else LENGTH] for ids in world.rows)
    got = sorted(ids[: len(asked[0])] for ids in seen["ids"])
    wanted = PROMPT + NEW if TASKS[task].on_policy else LENGTH
    if got != asked or ids_BT.shape != (batch, wanted):
        raise ValueError(f"{name}, {task}: trained on other sequences than it was given.")
    known, loss = KNOWN.get(cell, Known("")), seen["losses"][0]
    due = known.factor * expected(world, TASKS[task], ids_BT, known.past_the_end)
    if abs(loss / due - 1) > 1e-4:
        raise ValueError(f"{name}, {task}: reported a loss of {loss}, where {due} was due.")
    return {"loss": loss, "right": expected(world, TASKS[task], ids_BT)}


def forked(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result of a function in a process of its own; the imports are paid once, and nothing is printed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            said = function(*arguments)
        except BaseException:
            said = {"error": traceback.format_exc()}
        with os.fdopen(write, "w") as pipe:
            json.dump(said, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    result: dict[str, Any] = json.loads(text or '{"error": "ended without a word"}')
    if "error" in result:
        raise SystemExit(result["error"])
    return result


def measure(cells: list[tuple[str, str]], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Each cell trained once a round; its first steps checked."""
    size = (asked.vocabulary, asked.batch)
    seconds: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
    peaks: dict[tuple[str, str], list[int]] = {cell: [] for cell in cells}
    losses = {}
    for index in range(asked.rounds):
        for cell in cells:
            if index and cell[0] not in (OURS, BARE) and statistics.median(seconds[cell]) > SLOW:
                continue
            seen = forked(train, cell, *size, asked.steps)
            seconds[cell] += seen["seconds"]
            peaks[cell].append(seen["peak"])
            said = (
                f"  round {index + 1}, {', '.join(cell)}: {statistics.median(seen['seconds']):.2f} s a step"
            )
            print(said, file=sys.stderr, flush=True)
            if not index:
                losses[cell] = forked(check, cell, *size, seen)
    return [
        {
            "row": cell[0],
            "task": cell[1],
            "seconds": statistics.median(seconds[cell]),
            "spread": [min(seconds[cell]), max(seconds[cell])],
            "steps": len(seconds[cell]),
            "peak_mb": statistics.median(peaks[cell]) / 1e6,
            "peaks_mb": [peak / 1e6 for peak in peaks[cell]],
            **losses[cell],
        }
        for cell in cells
    ]


def table(record: dict[str, Any]) -> str:
    """The Markdown page of a record."""
    parts = ["# Whole trainers", ""]
    parts += [
        made_by(record["command"], record["machine"]),
        f"V={record['vocabulary']:,}, B={record['batch']}. Median CPU seconds of a step, and peak "
        "memory above the start of training; in brackets, times ours on the same task.",
        "",
    ]
    if record["missing"]:
        parts += [f"Not installed, so left out: {', '.join(record['missing'])}.", ""]
    for result in record["results"]:
        ours = {cell["task"]: cell for cell in result["cells"] if cell["row"] == OURS}
        rows = [_line(cell, ours.get(cell["task"])) for cell in result["cells"]]
        header = ["task", "trainer", "seconds a step", "peak, MB", "first loss", "the right one"]
        parts += [f"## {result['allocator'].capitalize()} allocator", "", markdown(header, rows)]
    said = {}
    for cell in (cell for result in record["results"] for cell in result["cells"]):
        known = KNOWN.get((cell["row"], cell["task"]))
        if known:
            off = 100 * (cell["loss"] / cell["right"] - 1)
            said[cell["row"], cell["task"]] = (
                f"- {cell['row']}, {cell['task']}: its loss is off by {off:+.2g} %: {known.why}."
            )
    if said:
        parts += ["Where a first loss is not the right one:", "", *said.values(), ""]
    return "\n".join(parts)


def _line(cell: dict[str, Any], ours: dict[str, Any] | None) -> list[str]:
    def beside(key: str, digits: int) -> str:
        times = "" if ours is None or cell is ours else f" ({cell[key] / ours[key]:.2f})"
        return f"{cell[key]:.{digits}f}{times}"

    said = [f"{cell['loss']:.5f}", f"{cell['right']:.5f}"]
    return [cell["task"], cell["row"], beside("seconds", 3), beside("peak_mb", 0), *said]


def main() -> None:
    """Measure, in one process an allocator that forks one for each training, and write down."""
    options = parser(__doc__)
    options.add_argument("--vocabulary", type=int, default=32_000)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--steps", type=int, default=3, help="of each training; the first is not timed")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    options.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    options.add_argument("--allocators", nargs="+", default=list(ALLOCATORS), choices=list(ALLOCATORS))
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = options.parse_args()
    missing = [name for name in asked.rows if not installed(ROWS[name])]
    cells = [c for c in CELLS if c[0] in asked.rows and c[0] not in missing and c[1] in asked.tasks]
    torch.set_num_threads(1)
    if asked.worker:
        logging.disable(logging.WARNING)
        if any(ROWS[name].package == "trl" for name, _ in cells):
            import_module("trl.experimental.gkd")  # here once, not in each training
            import_module("trl.trainer.distillation_trainer")
        print(json.dumps(measure(cells, asked)), flush=True)
        return
    record: dict[str, Any] = {
        "command": command_line(),
        "machine": machine("cpu"),
        "vocabulary": asked.vocabulary,
        "batch": asked.batch,
        "missing": missing,
        "results": [],
    }
    asked.output.mkdir(parents=True, exist_ok=True)
    for allocator in asked.allocators:
        environment = {
            **os.environ,
            "GLIBC_TUNABLES": ALLOCATORS[allocator],
            "OMP_NUM_THREADS": "1",
            "TRL_EXPERIMENTAL_SILENCE": "1",
        }
        command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        record["results"].append({"allocator": allocator, "cells": json.loads(done.stdout)})
        # After each, so that an interrupted run leaves what it measured.
        stem = asked.output / "trainers"
        stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        stem.with_suffix(".md").write_text(table(record), encoding="utf-8")
    print(table(record))


if __name__ == "__main__":
    main()
