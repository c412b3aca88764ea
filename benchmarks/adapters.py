"""Adapters side by side: same method (KD), rows and steps, the learning rate searched for each.

    OMP_NUM_THREADS=1 python benchmarks/adapters.py --pair embedded_pruned
    OMP_NUM_THREADS=1 python benchmarks/adapters.py --pair smollm2 [data.path=FOLDER]

The rate is the one with the lowest validation NLL at the end of the search. On the embedded pair the search
is over whole runs, on SmolLM2 over short ones. Runs that are done are not run again. Writes
``benchmarks/results/adapters_<pair>.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runs import cost, markdown, parser, results, run, validation, write

FULL = "none"
LABELS = {FULL: "full fine-tuning"}
ADAPTERS = (FULL, "lora", "dora", "qlora", "prefix", "prompt", "ptuning", "ia3")


@dataclass(frozen=True)
class Pair:
    """A pair of models: what to run on it, and where to look for rates."""

    adapters: tuple[str, ...]
    keys: tuple[str, ...]
    rates: dict[str, tuple[str, ...]]
    search: tuple[str, ...]
    metrics: tuple[str, ...]


PAIRS = {
    "embedded_pruned": Pair(
        adapters=ADAPTERS,
        keys=("name=adapters", "model=embedded_pruned", "data.max_eval_rows=200", "eval.generation_rows=50"),
        rates={
            FULL: ("1e-3", "3e-3"),
            "lora": ("3e-3", "1e-2", "3e-2"),
            "dora": ("3e-3", "1e-2", "3e-2"),
            "qlora": ("3e-3", "1e-2", "3e-2"),
            "prefix": ("1e-2", "3e-2", "1e-1"),
            "prompt": ("1e-2", "3e-2", "1e-1"),
            "ptuning": ("3e-3", "1e-2", "3e-2"),
            "ia3": ("1e-2", "3e-2", "1e-1"),
        },
        search=(),
        metrics=("nll", "kl_to_teacher", "top1_agreement", "faithfulness"),
    ),
    "smollm2": Pair(
        adapters=(FULL, "lora", "qlora", "prefix", "prompt", "ia3"),
        keys=("experiment=smollm2_adapters",),
        rates={
            FULL: ("2e-4", "6e-4", "2e-3"),
            "lora": ("3e-3", "1e-2"),
            "qlora": ("3e-3", "1e-2"),
            "prefix": ("1e-2", "1e-1"),
            "prompt": ("3e-2", "3e-1"),
            "ia3": ("1e-2", "1e-1"),
        },
        search=(
            "trainer.max_steps=10",
            "trainer.eval_steps=10",
            "data.max_eval_rows=24",
            "eval.metrics=[likelihood]",
            "name=search",
        ),
        metrics=("nll", "kl_to_teacher", "top1_agreement"),
    ),
}


def distil(pair: Pair, adapter: str, rate: str, output: Path, *more: str) -> Path:
    """One run."""
    return run(*pair.keys, f"peft={adapter}", f"trainer.learning_rate={rate}", *more, output=output)


def last_validation(folder: Path) -> float:
    """Validation NLL a token at the last step."""
    return validation(folder)[-1][1]


def row(pair: Pair, adapter: str, rate: str, folder: Path, full: Path) -> list[object]:
    """One line of the table; time as a ratio to full fine-tuning, memory and size as they are."""
    after, spent, whole = results(folder)["student_after"], cost(folder), cost(full)
    counted = spent["parameters"]
    return [
        LABELS.get(adapter, adapter),
        rate,
        f"{counted['trainable']:,} ({100 * counted['trainable'] / counted['student']:.3g} %)",
        *(f"{after[m]:.3f}" for m in pair.metrics),
        f"{spent['cpu_seconds_per_step']:.3g}",
        f"{spent['cpu_seconds_per_step'] / whole['cpu_seconds_per_step']:.2f}",
        f"{spent['peak_memory_bytes'] / 1e6:,.0f}",
        f"{spent['student_bytes'] / 1e6:.3g}",
    ]


def main() -> None:
    """Search, run, tabulate."""
    options = parser(__doc__, runs=True)
    options.add_argument("--pair", choices=sorted(PAIRS), required=True)
    options.add_argument(
        "--adapters", nargs="+", choices=ADAPTERS, help="of those of the pair; the first is 1x"
    )
    asked = options.parse_args()
    pair, output, more = PAIRS[asked.pair], asked.runs, asked.overrides
    searched: list[list[object]] = []
    rows: list[list[object]] = []
    full: Path | None = None
    for adapter in asked.adapters or pair.adapters:
        found = {
            rate: last_validation(distil(pair, adapter, rate, output, *pair.search, *more))
            for rate in pair.rates[adapter]
        }
        best = min(found, key=lambda rate: found[rate])
        searched.append([LABELS.get(adapter, adapter), *(f"{r}: {nll:.3f}" for r, nll in found.items())])
        folder = distil(pair, adapter, best, output, *more)
        full = full or folder
        if not rows:
            for who in ("teacher", "student_before"):
                scores = results(folder)[who]
                rows.append([who.replace("_", " "), "", "", *(f"{scores[m]:.3f}" for m in pair.metrics)])
                rows[-1] += [""] * 4
        rows.append(row(pair, adapter, best, folder, full))
    header = ["", "learning rate", "trained parameters", *pair.metrics]
    header += ["CPU s a step", "x full", "peak MB", "MB on disk"]
    width = max(map(len, searched))
    parts = [
        "NLL and KL in nats a token; peak memory is that of the whole process, teacher and libraries "
        "included.\n",
        markdown(header, rows),
        "Validation NLL at the last step of the search, by learning rate:\n",
        markdown(["", *[""] * (width - 1)], [line + [""] * (width - len(line)) for line in searched]),
    ]
    write(asked.output / f"adapters_{asked.pair}.md", f"Adapters on the {asked.pair} pair", parts)


if __name__ == "__main__":
    main()
