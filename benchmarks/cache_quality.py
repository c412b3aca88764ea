"""Random-sampling KD against top-k at equal bytes, beside the whole teacher: what students come to.

    OMP_NUM_THREADS=1 python benchmarks/cache_quality.py --data ../shared/data

stories260K into its own layers 0, 2, 4; forward KL alone at temperature 1, equal steps, several seeds.
``top-k, equal bytes`` has the largest k that takes no more room than the paper's draws did. Runs that are
done are not run again; the short setting takes about ten minutes, ``--rows 3000 --steps 400 --eval-rows
500`` is the long one. Writes ``benchmarks/results/cache_quality.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import ROOT, cost, markdown, parser, results, run, stories, write

from distil.teacher_cache.formats.base import Size
from distil.teacher_cache.formats.topk import TopK, TopKConfig

METRICS = ("nll", "kl_to_teacher", "top1_agreement")
SAMPLED = "sampled, independent (the paper's)"
CACHES = {
    "the teacher itself": ("teacher_cache=none",),
    "hidden, bfloat16": ("teacher_cache=hidden", "teacher_cache.dtype=bfloat16"),
    "top-k, k=64": ("teacher_cache=topk", "teacher_cache.temperatures=[1]"),
    SAMPLED: ("teacher_cache=sampled", "teacher_cache.draws=independent"),
    "sampled, systematic": ("teacher_cache=sampled",),
}
VOCABULARY = 512


def keys(given: argparse.Namespace) -> list[str]:
    """What all runs share."""
    return [
        *stories(given.data),
        f"data.max_train_rows={given.rows}",
        f"data.max_eval_rows={given.eval_rows}",
        "method=kd",
        "method.kd_loss_weight=1",
        "method.temperature=1",
        f"trainer.max_steps={given.steps}",
        f"trainer.eval_steps={given.steps}",
        "trainer.save_strategy=no",
        "name=cache_quality",
    ]


def bytes_of(folder: Path) -> float | None:
    """A token's, of the cache that a run read."""
    fact = cost(folder).get("teacher_cache")
    return None if fact is None else fact["bytes"] / fact["tokens"]


def at_equal_bytes(most: float) -> tuple[str, tuple[str, ...]]:
    """The top-k that takes no more than ``most`` bytes a token."""

    def size(k: int) -> float:
        return TopK(TopKConfig(k=k, temperatures=[1])).bytes_per_token(Size(VOCABULARY, 1, 4))

    k = max(k for k in range(1, 65) if k == 1 or size(k) <= most)
    shared = ("teacher_cache=topk", "teacher_cache.temperatures=[1]")
    return f"top-k, equal bytes (k={k})", (*shared, f"teacher_cache.k={k}")


def spread(values: Sequence[float]) -> str:
    """Mean, and the standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def row(label: str, folders: Sequence[Path]) -> list[object]:
    """One line of the table."""
    size = bytes_of(folders[0])
    after = [results(folder)["student_after"] for folder in folders]
    seconds = statistics.median(cost(folder)["cpu_seconds_per_step"] for folder in folders)
    told = [spread([scores[metric] for scores in after]) for metric in METRICS]
    return [label, "" if size is None else f"{size:.0f}", *told, f"{seconds:.3f}"]


def main() -> None:
    """Run, tabulate."""
    options = parser(__doc__, runs=True)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--rows", type=int, default=300, help="stories to train on")
    options.add_argument("--eval-rows", type=int, default=100, help="stories to evaluate on")
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = options.parse_args()
    common = [*keys(given), *given.overrides]

    def runs(*cache: str) -> list[Path]:
        return [run(*common, *cache, f"seed={seed}", output=given.runs) for seed in given.seeds]

    found = {label: runs(*cache) for label, cache in CACHES.items()}
    size = bytes_of(found[SAMPLED][0])
    assert size is not None
    label, cache = at_equal_bytes(size)
    found[label] = runs(*cache)
    start = results(found[label][0])
    rows: list[list[object]] = [
        [who.replace("_", " "), "", *(f"{start[who][metric]:.4f}" for metric in METRICS), ""]
        for who in ("teacher", "student_before")
    ]
    rows += [row(label, folders) for label, folders in found.items()]
    parts = [
        f"{len(given.seeds)} seeds, mean ± standard deviation; NLL and KL in nats a token.\n",
        markdown(["teacher", "bytes a token", *METRICS, "CPU s a step"], rows),
    ]
    title = "What students learn from each format of the teacher cache"
    write(given.output / "cache_quality.md", title, parts)


if __name__ == "__main__":
    main()
