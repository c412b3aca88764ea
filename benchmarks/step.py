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
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from runs import command_line, markdown, parser
from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import kl_div

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.forward import Forward, scored_and_targets
from distil.head import score
from distil.losses import Term, cross_entropy
from distil.types import IGNORE_INDEX, REFERENCE

SIZES = {"32k": (32_000, 8), "152k": (151_936, 4)}
"""Vocabulary and sequences."""
LENGTH, PROMPT, CHUNK = 256, 64, 256
ALLOCATORS = {
    "default": "",
    "retaining": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000",
}
CE_KL = "CE + KL at T=2"
OBJECTIVES: dict[str, tuple[Term, ...]] = {
    "KL": (Term(1.0, REFERENCE, forward_kl),),
    "reverse KL": (Term(1.0, REFERENCE, reverse_kl),),
    "JSD": (Term(1.0, REFERENCE, GeneralizedJSD(0.5)),),
    CE_KL: (Term(0.5, REFERENCE, cross_entropy), Term(2.0, REFERENCE, forward_kl, 2.0)),
}
BETAS = {"KL": 0.0, "reverse KL": 1.0, "JSD": 0.5, CE_KL: 0.0}
"""What TRL and Liger call each: their ends are the two KLs."""


@dataclass
class Bench:
    """The models and the batch that every row shares."""

    teacher: Any
    student: Any
    ids_BT: Tensor
    labels_BT: Tensor

    @property
    def count(self) -> int:
        """Scored tokens."""
        return int((self.labels_BT[:, 1:] != IGNORE_INDEX).sum())

    def bodies(self) -> tuple[Tensor, Tensor]:
        """Hidden states of the student (with a graph) and the teacher, all positions."""
        with torch.no_grad():
            taught = self.teacher.model(input_ids=self.ids_BT).last_hidden_state
        return self.student.model(input_ids=self.ids_BT).last_hidden_state, taught


def build(vocabulary: int, rows: int, device: str) -> Bench:
    """Random models; weights of some size, so that the two distributions differ as real ones do."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def model(width: int, seed: int) -> Any:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            initializer_range=0.1,
        )
        return LlamaForCausalLM(config).to(device)

    ids_BT = torch.randint(vocabulary, (rows, LENGTH), device=device)
    labels_BT = ids_BT.clone()
    labels_BT[:, :PROMPT] = IGNORE_INDEX
    return Bench(model(256, 0).eval().requires_grad_(False), model(128, 1), ids_BT, labels_BT)


def floor(bench: Bench, _objective: str) -> Tensor:
    """Both bodies, each head multiplied once over scored positions, the student's gradients; in chunks."""
    scored_BT, _ = scored_and_targets(bench.labels_BT)
    student_BTH, teacher_BTH = bench.bodies()
    student_NH, teacher_NH = student_BTH[scored_BT], teacher_BTH[scored_BT]
    weight, taught = bench.student.lm_head.weight, bench.teacher.lm_head.weight
    with torch.no_grad():
        slope_NH, slope_VH = torch.empty_like(student_NH), torch.zeros_like(weight)
        s, t = (student_NH.new_empty(CHUNK, len(weight)) for _ in range(2))
        for start in range(0, len(student_NH), CHUNK):
            rows = slice(start, start + CHUNK)
            n = len(student_NH[rows])
            torch.mm(student_NH[rows], weight.T, out=s[:n])
            torch.mm(teacher_NH[rows], taught.T, out=t[:n])
            torch.mm(s[:n], weight, out=slope_NH[rows])
            slope_VH.addmm_(s[:n].T, student_NH[rows])
        weight.grad = slope_VH
    student_NH.backward(slope_NH)
    return torch.zeros(())


def ours(bench: Bench, objective: str) -> Tensor:
    """What the trainer does in a step."""
    scored_BT, targets_N = scored_and_targets(bench.labels_BT)
    mask_BT = torch.ones_like(bench.ids_BT)
    with torch.no_grad():
        teacher = Forward(bench.teacher)(bench.ids_BT, mask_BT, scored_BT)
    student = Forward(bench.student)(bench.ids_BT, mask_BT, scored_BT)
    vocabulary = bench.student.config.vocab_size
    loss, _ = score(student, targets_N, OBJECTIVES[objective], teacher, vocabulary)
    loss = loss / len(targets_N)
    loss.backward()
    return loss.detach()


def _whole_logits(bench: Bench) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        teacher_BTV = bench.teacher(input_ids=bench.ids_BT).logits
    return bench.student(input_ids=bench.ids_BT).logits, teacher_BTV


def naive(bench: Bench, objective: str) -> Tensor:
    """Whole logits, log_softmax, the formula, autograd."""
    student_BTV, teacher_BTV = _whole_logits(bench)
    kept_BT, targets_N = scored_and_targets(bench.labels_BT)
    student_NV, teacher_NV = student_BTV[kept_BT], teacher_BTV[kept_BT]
    T = 2.0 if objective == CE_KL else 1.0
    q, p = (student_NV / T).log_softmax(-1), (teacher_NV / T).log_softmax(-1)
    if objective == "JSD":
        m = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
        loss = 0.5 * (kl_div(m, p, log_target=True, reduction="sum"))
        loss = loss + 0.5 * kl_div(m, q, log_target=True, reduction="sum")
    elif objective == "reverse KL":
        loss = kl_div(p, q, log_target=True, reduction="sum")
    else:
        loss = kl_div(q, p, log_target=True, reduction="sum")
    if objective == CE_KL:
        loss = 2.0 * loss + 0.5 * torch_cross_entropy(student_NV, targets_N, reduction="sum")
    loss = loss / bench.count
    loss.backward()
    return loss.detach()


def trl_gkd(bench: Bench, objective: str) -> Tensor:
    """The loss of TRL's GKDTrainer."""
    from trl.experimental.gkd import GKDTrainer

    student_BTV, teacher_BTV = _whole_logits(bench)
    loss = GKDTrainer.generalized_jsd_loss(
        student_BTV[:, PROMPT - 1 : -1],
        teacher_BTV[:, PROMPT - 1 : -1],
        bench.labels_BT[:, PROMPT:],
        beta=BETAS[objective],
        num_items_in_batch=bench.count,
    )
    loss.backward()
    return loss.detach()


def trl_chunked(bench: Bench, objective: str) -> Tensor:
    """The loss of TRL's DistillationTrainer."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    student_BTH, teacher_BTH = bench.bodies()
    loss, _, _ = _chunked_divergence_loss(
        student_BTH[:, PROMPT - 1 : -1],
        teacher_BTH[:, PROMPT - 1 : -1],
        bench.student.lm_head.weight,
        bench.teacher.lm_head.weight,
        (bench.labels_BT[:, PROMPT:] != IGNORE_INDEX).long(),
        BETAS[objective],
        bench.count,
    )
    loss.backward()
    return loss.detach()


def liger(bench: Bench, objective: str) -> Tensor:
    """Liger's fused linear JSD, without a compiler."""
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss

    both = objective == CE_KL
    head = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.5 if both else 0.0,
        weight_soft_loss=2.0 if both else 1.0,
        beta=BETAS[objective],
        temperature=2.0 if both else 1.0,
        compiled=False,
    )
    student_BTH, teacher_BTH = bench.bodies()
    loss = head(
        student_BTH[:, PROMPT - 1 : -1].flatten(0, 1),
        bench.student.lm_head.weight,
        teacher_BTH[:, PROMPT - 1 : -1].flatten(0, 1),
        bench.teacher.lm_head.weight,
        bench.labels_BT[:, PROMPT:].flatten(),
    )
    loss.backward()
    return loss.detach()


Row = Callable[[Bench, str], Tensor]
ROWS: dict[str, tuple[Row, str]] = {
    "floor": (floor, ""),
    "ours": (ours, ""),
    "whole logits": (naive, ""),
    "TRL GKD loss": (trl_gkd, "trl"),
    "TRL chunked divergence": (trl_chunked, "trl"),
    "Liger fused linear JSD": (liger, "liger_kernel"),
}
"""Each with the package that it needs."""


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


def status(key: str) -> int:
    """Bytes that the kernel counts under this key for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def machine(device: str) -> dict[str, str]:
    """Where the figures were made."""
    import platform

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


def table(record: dict[str, Any]) -> str:
    """The Markdown page of a record."""
    parts = ["# One distillation step, times the floor", ""]
    parts += [
        f"Made by `{record['command']}` on {', '.join(f'{k} {v}' for k, v in record['machine'].items())}.",
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
