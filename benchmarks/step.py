"""One distillation step: time and memory beside the floor, whole logits, TRL and Liger.

    OMP_NUM_THREADS=1 python benchmarks/step.py

Random Llamas, teacher 4 layers x 256 and student 4 x 128, in float32; sequences of 256 tokens, of which 64
are the prompt. The floor is both bodies and the products that no head can avoid, without any divergence. Rows
are interleaved, round by round; time is the process's CPU time (on a GPU the clock's), memory the high-water
mark above the start of the step. On a CPU all is done twice: with the allocator as it is, and with one that
keeps freed blocks, for half of what a large tensor costs may be page faults. Peers that are not installed are
left out by name. Writes ``benchmarks/results/step.json`` and ``step.md`` (``step_cuda`` on a GPU).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from heads import CE_KL, OBJECTIVES, ROWS, SIZES, Bench, build
from runs import ALLOCATORS, command_line, machine, made_by, markdown, parser, status


def measure(bench: Bench, rows: list[str], objectives: list[str], rounds: int) -> list[dict[str, Any]]:
    """Median seconds and peak bytes of each row; the floor runs once a round, for all objectives."""
    cells = [(row, objective) for objective in objectives for row in rows if row != "floor"]
    cells = [c for c in cells if not (c[1] == CE_KL and c[0].startswith("TRL"))]  # no CE there
    cells.insert(0, ("floor", ""))
    seconds: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
    losses: dict[tuple[str, str], float] = {}
    peaks = {cell: _peak(bench, cell) for cell in cells}
    for index in range(rounds + 1):
        for cell in cells:
            # Slow rows repeat less: their spread does not decide anything.
            if index > 1 and cell[0] not in ("floor", "ours") and seconds[cell][0] > 5:
                continue
            taken, losses[cell] = _time(bench, cell)
            if index:
                seconds[cell].append(taken)
    base = statistics.median(seconds["floor", ""])
    return [
        {
            "row": row,
            "objective": objective,
            "seconds": statistics.median(seconds[row, objective]),
            "ratio": statistics.median(seconds[row, objective]) / base,
            "spread": [min(seconds[row, objective]) / base, max(seconds[row, objective]) / base],
            "peak_mb": peaks[row, objective] / 1e6,
            "loss": losses[row, objective],
        }
        for row, objective in cells
    ]


def _time(bench: Bench, cell: tuple[str, str]) -> tuple[float, float]:
    bench.student.zero_grad(set_to_none=True)
    clock = time.process_time
    if bench.ids_BT.is_cuda:
        torch.cuda.synchronize()
        clock = time.perf_counter
    start = clock()
    loss = ROWS[cell[0]][0](bench, cell[1])
    if bench.ids_BT.is_cuda:
        torch.cuda.synchronize()
    return clock() - start, float(loss)


def _peak(bench: Bench, cell: tuple[str, str]) -> int:
    """High-water mark of one step above its start; on a CPU in a fork: no row inherits free blocks."""
    bench.student.zero_grad(set_to_none=True)
    if bench.ids_BT.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        ROWS[cell[0]][0](bench, cell[1])
        return torch.cuda.max_memory_allocated() - before
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # One short row first: lazy imports and thread pools are no part of a step.
            ROWS[cell[0]][0](
                Bench(bench.teacher, bench.student, bench.ids_BT[:1], bench.labels_BT[:1]), cell[1]
            )
            bench.student.zero_grad(set_to_none=True)
            before = status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")
            ROWS[cell[0]][0](bench, cell[1])
            os.write(write, str(status("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return int(pipe.read())


def table(record: dict[str, Any]) -> str:
    """The Markdown page of a record."""
    parts = ["# One distillation step, times the floor", ""]
    parts += [
        made_by(record["command"], record["machine"]),
        "",
    ]
    if record["missing"]:
        parts += [f"Not installed, so left out: {', '.join(record['missing'])}.", ""]
    for result in record["results"]:
        cells = result["cells"]
        base = cells[0]
        names = list(dict.fromkeys(c["row"] for c in cells))
        objectives = [o for o in OBJECTIVES if any(c["objective"] == o for c in cells)]
        by = {(c["row"], c["objective"]): c for c in cells}
        rows = []
        for name in names[1:]:
            found = [by.get((name, o)) for o in objectives]
            shown = [f"{c['ratio']:.2f} / {c['peak_mb']:.0f} MB" if c else "" for c in found]
            rows.append([name, *shown])
        title = f"V={result['vocabulary']:,}, B={result['rows']}, {result['allocator']} allocator"
        said = f"Floor: {base['seconds']:.3f} s, {base['peak_mb']:.0f} MB."
        parts += [f"## {title}", "", said, "", markdown(["", *objectives], rows)]
    return "\n".join(parts)


def main() -> None:
    """Measure, in one process an allocator, and write down."""
    options = parser(__doc__)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    options.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    options.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    options.add_argument("--allocators", nargs="+", default=list(ALLOCATORS), choices=list(ALLOCATORS))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    missing = [name for name in arguments.rows if ROWS[name][1] and find_spec(ROWS[name][1]) is None]
    rows = [name for name in arguments.rows if name not in missing]
    if arguments.worker:
        torch.set_num_threads(1)
        for size in arguments.sizes:
            vocabulary, count = SIZES[size]
            bench = build(vocabulary, count, arguments.device)
            cells = measure(bench, rows, arguments.objectives, arguments.rounds)
            print(json.dumps({"vocabulary": vocabulary, "rows": count, "cells": cells}), flush=True)
        return
    record: dict[str, Any] = {
        "command": command_line(),
        "machine": machine(arguments.device),
        "missing": missing,
        "results": [],
    }
    stem = arguments.output / ("step" if arguments.device == "cpu" else "step_cuda")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for allocator in arguments.allocators if arguments.device == "cpu" else ["default"]:
        environment = {**os.environ, "GLIBC_TUNABLES": ALLOCATORS[allocator]}
        command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                record["results"].append({"allocator": allocator, **json.loads(line)})
                print(table({**record, "results": record["results"][-1:]}), flush=True)
                # After each, so that an interrupted run leaves what it measured.
                stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                stem.with_suffix(".md").write_text(table(record), encoding="utf-8")
        if worker.returncode:
            raise SystemExit(worker.returncode)


if __name__ == "__main__":
    main()
