"""A sweep that asks its teacher once: nine jobs, three methods and three seeds, with each cache and without.

    OMP_NUM_THREADS=1 python benchmarks/cache_sweep.py --data ../shared/data

stories260K into its own layers 0, 2, 4 on 300 stories, 40 steps; kd, revkd and gkd (whose own text no cache
knows) at temperature 1. Each sweep is one command with a teacher cache of its own; jobs that are done are not
run again. ``apart`` is the largest difference in test NLL between a job and the same job without a cache.
Writes ``benchmarks/results/cache_sweep.md``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import ROOT, cost, markdown, parser, results, stories, write

METHODS, SEEDS = ("kd", "revkd", "gkd"), (0, 1, 2)
CACHES = {
    "none": ("teacher_cache=none",),
    "hidden": ("teacher_cache=hidden",),
    "top-k, k=64": ("teacher_cache=topk", "teacher_cache.temperatures=[1]"),
}


def sweep(keys: list[str], cache: tuple[str, ...], output: Path) -> dict[tuple[str, int], Path]:
    """The run directories of one command, by method and seed."""
    swept = (f"method={','.join(METHODS)}", f"seed={','.join(map(str, SEEDS))}")
    words = ["-m", f"output_dir={output}", "name=cache_sweep", *keys, *cache, *swept]
    print(" ", *cache, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    jobs = json.loads((output / "cache_sweep" / "sweep.json").read_text(encoding="utf-8"))["jobs"]
    found = {}
    for folder in (output / "cache_sweep" / job["run"] for job in jobs if job["status"] == "done"):
        method = folder.name.partition("-")[0]
        seed = int(folder.name.rsplit("-s", 1)[1].partition("-")[0])
        found[method, seed] = folder
    return found


def built(folders: list[Path]) -> int:
    """How many of the jobs built a cache, and so asked the teacher about the training rows."""
    facts: list[dict[str, Any]] = [cost(folder).get("teacher_cache") or {} for folder in folders]
    return sum(bool(fact.get("built")) for fact in facts)


def main() -> None:
    """Sweep, compare, tabulate."""
    options = parser(__doc__, runs=True)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--steps", type=int, default=40)
    asked = options.parse_args()
    keys = [
        *stories(asked.data),
        "data.max_train_rows=300",
        "data.max_eval_rows=100",
        "trainer.warmup_steps=5",
        f"trainer.max_steps={asked.steps}",
        f"trainer.eval_steps={asked.steps}",
        "trainer.save_strategy=no",
        "method.temperature=1",
        *asked.overrides,
    ]
    swept = {
        label: sweep(keys, cache, asked.runs.resolve() / f"cache_sweep_{number}")
        for number, (label, cache) in enumerate(CACHES.items())
    }
    wanted = {job: results(folder)["student_after"]["nll"] for job, folder in swept["none"].items()}
    rows: list[list[object]] = []
    for label, found in swept.items():
        if found.keys() != wanted.keys() or len(found) != len(METHODS) * len(SEEDS):
            raise SystemExit(f"{label}: {len(found)} of {len(METHODS) * len(SEEDS)} jobs are done.")
        asks = len(found) if label == "none" else built(list(found.values()))
        nll = {job: results(folder)["student_after"]["nll"] for job, folder in found.items()}
        apart = [max(abs(nll[m, seed] - wanted[m, seed]) for seed in SEEDS) for m in METHODS]
        seconds = [
            statistics.median(cost(found[method, seed])["cpu_seconds_per_step"] for seed in SEEDS)
            for method in METHODS
        ]
        told = [f"{value:.1e}" if value else "0" for value in apart]
        rows.append([label, asks, *told, *(f"{value:.3f}" for value in seconds)])
    header = ["teacher cache", "jobs that ask the teacher about the rows"]
    header += [*(f"{m}, apart" for m in METHODS), *(f"{m}, CPU s a step" for m in METHODS)]
    write(asked.output / "cache_sweep.md", "Nine jobs, one teacher", [markdown(header, rows)])


if __name__ == "__main__":
    main()
