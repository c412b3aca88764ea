"""From the command to its first word and to its first training step, in CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/startup.py

``--help`` and a config that is refused load neither torch nor transformers. Up to the first step the default
run loads libraries, data and models, and evaluates teacher and untouched student on the test rows; the
libraries alone are measured beside it, and the three packages that all of it stands on. Medians over rounds,
after one that warms the disk. Writes ``benchmarks/results/startup.md``.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import ROOT, markdown, parser, write

HOOK = """
import os, time
from torch.optim.optimizer import register_optimizer_step_pre_hook

def report(*_args):
    print(f"FIRST STEP {time.process_time()}", flush=True)
    os._exit(0)

register_optimizer_step_pre_hook(report)
"""
"""A plugin that stops the run at its first optimizer step."""


def python(*arguments: str) -> tuple[float, str]:
    """CPU seconds of a process, and what it wrote."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def first_step(*arguments: str) -> float:
    """CPU seconds of the run's process up to its first optimizer step."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "hook.py"
        plugin.write_text(HOOK, encoding="utf-8")
        _, said = python(
            "run.py", f"run.plugins=[{plugin}]", f"output_dir={folder}", "run.rerun=true", *arguments
        )
    return float(said.partition("FIRST STEP ")[2].split()[0])


def main() -> None:
    """Measure and write."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    measured = {
        "`run.py --help`": lambda: python("run.py", "--help")[0],
        "a config that is refused": lambda: python("run.py", "method=kdd")[0],
        "`import torch`": lambda: python("-c", "import torch")[0],
        "`import datasets, peft` and Trainer": lambda: python(
            "-c", "import datasets, peft; from transformers import PreTrainedModel, Trainer"
        )[0],
        "all that a run imports": lambda: python("-c", "import distil.stages")[0],
        "first step, with one row evaluated before": lambda: first_step(
            "eval.generation_rows=0", "eval.metrics=[likelihood]", "data.max_eval_rows=1"
        ),
        "first step of the default run": first_step,
    }
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for index in range(asked.rounds + 1):
        for name, measure in measured.items():
            taken = measure()
            if index:
                seconds[name].append(taken)
    cells = [[name, f"{statistics.median(taken):.2f}"] for name, taken in seconds.items()]
    write(asked.output / "startup.md", "Start-up", [markdown(["", "CPU seconds"], cells)])


if __name__ == "__main__":
    main()
