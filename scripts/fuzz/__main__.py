"""Read what nobody wrote: mutated configs, data, runs, caches, checkpoints, adapters, tokenizers.

    python -m scripts.fuzz --inputs 10000 --seed 0
    python -m scripts.fuzz --target data --inputs 500 --keep found
    python -m scripts.fuzz --target data --replay found/data-0

Each input must end in a result or in one message for the user: no other exception, no more than 10 seconds,
nothing written outside its folder, no process, connection or pickle, no more memory than is given. Inputs
that reach lines of the package that none had reached are mutated on. Ends with 1 where anything was found.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from scripts.chaos.runs import import_everything
from scripts.fuzz.guard import Finding, Guard, bounded
from scripts.fuzz.mutate import Files, mutated, read, write
from scripts.fuzz.seeds import run_seeds
from scripts.fuzz.targets import Target, targets


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--inputs", type=int, default=10_000, help="over all targets, or of the one asked for"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", help="one of them alone")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that broke something")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="use this input, and no other")
    parser.add_argument(
        "--made", type=Path, help="keep the runs that inputs are made from there, to use again"
    )
    parser.add_argument("--jobs", type=int, default=1, help="targets at once")
    parser.add_argument("--no-coverage", action="store_true", help="mutate the inputs to begin with alone")
    asked = parser.parse_args(arguments)
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    sys.dont_write_bytecode = True
    import_everything()
    with tempfile.TemporaryDirectory(prefix="distil-fuzz-") as temporary:
        root = Path(temporary).resolve()
        made = (asked.made or root / "made").resolve()
        known = targets(made, run_seeds(made))
        chosen = {name: known[name] for name in ([asked.target] if asked.target else known)}
        logging.disable()
        warnings.simplefilter("ignore")
        guard = Guard(coverage=not asked.no_coverage)
        waiting, running, broken = [], 0, False
        for name, target in chosen.items():
            count = round(asked.inputs * (1 if asked.target else target.share))
            if asked.replay:
                target, count = replace(target, seeds=[read(asked.replay)]), 0
            chance = Random(f"{asked.seed} {name}")
            waiting.append(partial(fuzz, guard, name, target, count, chance, root / name, asked.keep))
        while waiting or running:
            if waiting and running < asked.jobs:
                _forked(waiting.pop(0))
                running += 1
            else:
                _, status = os.wait()
                broken, running = broken or status != 0, running - 1
    return 1 if broken else 0


def _forked(work: Callable[[], int]) -> None:
    """Do ``work`` in a child: its memory is bounded, and where a library takes it down, the others go on."""
    sys.stdout.flush()
    if os.fork():
        return
    code = 70
    try:
        with bounded():
            code = 1 if work() else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def fuzz(
    guard: Guard, name: str, target: Target, count: int, chance: Random, root: Path, keep: Path | None = None
) -> int:
    """Use the target's inputs and ``count`` made of them; print one line. How many different things broke."""
    started, before = time.process_time(), len(guard.lines)
    tempfile.tempdir = str(root / "in")
    corpus: list[Files] = list(target.seeds)
    broken: dict[tuple[str, str], Finding] = {}
    for number in range(len(corpus) + count):
        if number < len(target.seeds):
            files: Files = corpus[number]
        else:
            # The newest ones lie next to what is not known yet.
            parent = corpus[-1 - int(len(corpus) * chance.random() ** 2)]
            changed = mutated(parent, chance, chance.choice(target.seeds))
            if target.seal is not None and chance.random() < 0.7:
                target.seal(changed)
            files = changed
        finding, fresh = guard.run(target.use, placed(files, root / "in"))
        if finding is not None:
            at = (finding.place, finding.what.split(":")[0])
            if at not in broken and keep is not None:
                shutil.copytree(
                    root / "in", keep / f"{name}-{len(broken)}", symlinks=True, dirs_exist_ok=True
                )
                (keep / f"{name}-{len(broken)}.txt").write_text(finding.trace, errors="replace")
            broken.setdefault(at, finding)
        elif fresh and number >= len(target.seeds):
            corpus.append(files)
    for finding in broken.values():
        print(f"BROKEN {name}: {finding.place}: {finding.what!a}")
    print(
        f"{name}: {len(target.seeds)} + {count} inputs, {len(guard.lines) - before} lines reached, "
        f"{len(corpus) - len(target.seeds)} kept to go on from, {len(broken)} broken, "
        f"{time.process_time() - started:.0f} s of CPU",
        flush=True,
    )
    return len(broken)


def placed(files: Files, folder: Path) -> Path:
    """``folder``, holding ``files`` and nothing else."""
    if folder.is_symlink() or folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write(files, folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
