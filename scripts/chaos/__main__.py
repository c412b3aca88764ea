"""Kill, cut, race and damage runs, and hold what becomes of them to runs in peace.

    python -m scripts.chaos boundaries            kill -9 before every file operation of a whole run
    python -m scripts.chaos power                 the same, and what was not synced is lost
    python -m scripts.chaos full                  the disk is full from there on, and gets room again
    python -m scripts.chaos failing               every operation fails from there on, and the disk is mended
    python -m scripts.chaos memory --count 40     less memory than the embedded run takes, then enough
    python -m scripts.chaos kills --count 200     at random moments, over methods x adapters
    python -m scripts.chaos races --count 50      the same command twice and another run, one teacher cache
    python -m scripts.chaos damages --count 300   files of a checkpoint removed, cut, flipped
    python -m scripts.chaos judge --count 120     ckpt-chaos, from outside
    python -m scripts.chaos soak --minutes 120    sweeps for hours, stopped and killed; what they leave

Prints a row of docs/reliability.md; ends with 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scripts.chaos.judge import judge
from scripts.chaos.memory import memory
from scripts.chaos.runs import import_everything, make_pair
from scripts.chaos.scarce import scarce
from scripts.chaos.soak import soak
from scripts.chaos.trials import Trial, boundaries, damages, kills, races, save

WHAT = ("boundaries", "power", "full", "failing", "memory", "kills", "races", "damages", "judge", "soak")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=WHAT)
    parser.add_argument(
        "--count", type=int, help="kills, races, flips or sizes; of boundaries a sample (default all)"
    )
    parser.add_argument("--minutes", type=float, default=120, help="of a soak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where it is tried (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="a file for every trial")
    asked = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    import_everything()
    with tempfile.TemporaryDirectory(prefix="distil-chaos-") as temporary:
        root = (asked.folder or Path(temporary)).resolve()
        if asked.what == "judge":
            return judge(root, make_pair(root / "pair"), asked.count or 120)
        done: list[Trial] = []
        try:
            for trial in _tried(asked, root):
                done.append(trial)
                if trial.lost:
                    print(f"LOST {trial.what}: {trial.lost}", file=sys.stderr)
                if len(done) % 10 == 0:
                    print(f"{len(done)} tried", file=sys.stderr, flush=True)
        finally:
            if asked.json is not None:
                save(done, asked.json)
    silent = sum(trial.silent for trial in done)
    failed = sum(bool(trial.lost) for trial in done) - silent
    kinds = Counter(trial.kind for trial in done if trial.kind)
    counts = f" ({', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))})" if kinds else ""
    print(f"{asked.what}: {len(done)} tried{counts}, {failed} failed hard, {silent} diverged silently")
    return int(bool(failed or silent or not done))


def _tried(asked: argparse.Namespace, root: Path) -> Iterator[Trial]:
    base = make_pair(root / "pair")
    count: int | None = asked.count
    if asked.what in ("boundaries", "power"):
        return boundaries(root, base, power=asked.what == "power", sample=count, seed=asked.seed)
    if asked.what == "soak":
        return soak(root, base, minutes=asked.minutes, seed=asked.seed)
    if asked.what in ("full", "failing"):
        return scarce(root, base, asked.what, sample=count, seed=asked.seed)
    if asked.what == "memory":
        return memory(root, sample=count, seed=asked.seed)
    if asked.what == "kills":
        return kills(root, base, count=count or 200, seed=asked.seed)
    if asked.what == "races":
        return races(root, base, count=count or 50, seed=asked.seed)
    return damages(root, base, flips=count or 300, seed=asked.seed)


if __name__ == "__main__":
    sys.exit(main())
