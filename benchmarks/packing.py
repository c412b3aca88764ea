"""Rows laid end to end against padded rows, on a real pair: tokens a second, and the same losses.

    OMP_NUM_THREADS=1 python benchmarks/packing.py --data FOLDER

SmolLM2-135M-Instruct into 15 of its layers by KD, Dolly rows of at most 512 tokens, 8 a batch, float32, one
process a run. ``--data``: Dolly as local files (without it, from the hub). CPU seconds a step are of training
alone; they are those of the run's own ``cost.json``. Writes ``benchmarks/results/packing.md``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import cost, markdown, parser, run, write

LEAST = [
    "trainer.eval_strategy=no",
    "trainer.save_strategy=no",
    "trainer.logging_steps=1",
    "eval.teacher=false",
    "eval.generation_rows=0",
    "data.max_eval_rows=8",
    "eval.metrics=[likelihood]",
]
"""Nothing but the training is looked at."""


def losses(folder: Path) -> list[float]:
    """The loss of every step."""
    records: list[dict[str, Any]] = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [record["train/loss"] for record in records if "train/loss" in record]


def main() -> None:
    """Run both and write the table."""
    options = parser(__doc__, runs=True)
    options.add_argument("--data", type=Path, help="a folder with Dolly's rows")
    options.add_argument("--steps", type=int, default=6)
    asked = options.parse_args()
    data = [] if asked.data is None else [f"data.path={asked.data.resolve()}"]
    cells, seen = [], {}
    for packing in (False, True):
        folder = run(
            "experiment=smollm2_dolly",
            "data.max_length=512",
            f"trainer.max_steps={asked.steps}",
            f"run.packing={str(packing).lower()}",
            *LEAST,
            *data,
            *asked.overrides,
            output=asked.runs / "packing",
        )
        facts = cost(folder)
        tokens = facts["scored_tokens"] / facts["steps"]
        seen[packing] = (tokens / facts["cpu_seconds_per_step"], losses(folder))
        cells.append(
            [
                "end to end" if packing else "padded",
                f"{facts['cpu_seconds_per_step']:.2f}",
                f"{seen[packing][0] / seen[False][0]:.2f}",
                f"{facts['peak_memory_bytes'] / 1e9:.2f}",
            ]
        )
    apart = max(abs(a / b - 1) for a, b in zip(seen[True][1], seen[False][1], strict=True))
    parts = [
        markdown(["rows", "CPU seconds a step", "tokens a second, x padded", "peak memory, GB"], cells),
        f"Losses of the {asked.steps} steps: at most {apart:.1e} of each other apart.\n",
    ]
    write(asked.output / "packing.md", "Rows end to end", parts)


if __name__ == "__main__":
    main()
