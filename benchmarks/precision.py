"""bfloat16 autocast beside float32: time of a whole step, and how far loss and gradient are apart.

    OMP_NUM_THREADS=1 python benchmarks/precision.py

The step of ``benchmarks/step.py`` at 32,000 ids with AdamW; under autocast weights stay float32 and so do
losses and log-probabilities. A CPU gains where it multiplies bfloat16 itself (avx512_bf16, amx_bf16). Writes
``benchmarks/results/precision.md``.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from heads import OBJECTIVES, SIZES, Bench, build, ours
from runs import markdown, parser, write

HEADER = ["", "float32, CPU seconds", "bfloat16, x as fast", "loss apart", "gradient norm apart"]
KINDS = {"float32": False, "bfloat16": True}


def step(bench: Bench, optimizer: Any, objective: str, lowered: bool) -> tuple[float, float, float]:
    """CPU seconds, loss, and norm of the gradient of one step."""
    bench.student.zero_grad(set_to_none=True)
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered):
        loss = ours(bench, objective)
    norm = torch.nn.utils.clip_grad_norm_(bench.student.parameters(), 1e9)
    optimizer.step()
    return time.process_time() - start, float(loss), float(norm)


def instructions() -> str:
    """What the CPU says it multiplies in bfloat16."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return ", ".join(name for name in ("avx512_bf16", "amx_bf16") if name in text) or "none of it"


def main() -> None:
    """Measure and write."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=7)
    asked = options.parse_args()
    bench = build(*SIZES["32k"], "cpu")
    # A rate of 0: every round sees the same weights, so losses and gradients are of one batch and one model.
    optimizer = torch.optim.AdamW(bench.student.parameters(), lr=0.0, weight_decay=0.0)
    cells = [(objective, kind) for objective in OBJECTIVES for kind in KINDS]
    seen: dict[tuple[str, str], list[tuple[float, float, float]]] = {cell: [] for cell in cells}
    for index in range(asked.rounds + 1):
        for objective, kind in cells:
            taken = step(bench, optimizer, objective, KINDS[kind])
            if index:
                seen[objective, kind].append(taken)
    rows = []
    for objective in OBJECTIVES:
        wide, low = (
            [statistics.median(values) for values in zip(*seen[objective, kind], strict=True)]
            for kind in KINDS
        )
        apart = [f"{abs(b / a - 1):.1e}" for a, b in zip(wide[1:], low[1:], strict=True)]
        rows.append([objective, f"{wide[0]:.2f}", f"{wide[0] / low[0]:.2f}", *apart])
    header = ["", "float32, CPU seconds", "bfloat16, x as fast", "loss apart", "gradient norm apart"]
    parts = [f"CPU instructions: {instructions()}.\n", markdown(header, rows)]
    write(asked.output / "precision.md", "bfloat16 autocast", parts)


if __name__ == "__main__":
    main()
