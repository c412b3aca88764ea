"""Does distillation help? KD against SFT on the embedded pair, equal steps, three seeds.

    OMP_NUM_THREADS=1 python benchmarks/kd_against_sft.py

Both search the same learning rates with seed 0 and take the one with the lowest validation NLL at the last
step. SFT is then given every other chance: each of the rates on every seed, the one that answers most
faithfully picked on the test rows themselves; its best step on the validation split; as many seconds as KD
took. Writes ``benchmarks/results/kd_against_sft.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runs import cost, markdown, parser, results, run, validation, write

RATES = ("1e-3", "2e-3", "3e-3", "5e-3")
SEEDS = (0, 1, 2)
METRICS = ("nll", "kl_to_teacher", "faithfulness", "fluency", "rougeL")
HEADER = ("run", "seed", *METRICS, "steps", "training s")


class Runs:
    """Runs on the embedded pair, all below one folder, all with the same overrides."""

    def __init__(self, folder: Path, overrides: Sequence[str]) -> None:
        self.folder, self.overrides = folder, overrides

    def __call__(self, method: str, rate: str, seed: int, *more: str) -> Path:
        """One of them."""
        keys = (f"method={method}", f"trainer.learning_rate={rate}", f"seed={seed}", "name=kd_against_sft")
        return run(*keys, *self.overrides, *more, output=self.folder)


def row(label: str, seed: int, folder: Path) -> list[object]:
    """One line of the table."""
    after, spent = results(folder)["student_after"], cost(folder)
    return [
        label,
        seed,
        *(f"{after[m]:.3f}" for m in METRICS),
        spent["steps"],
        f"{spent['seconds']['train']:.0f}",
    ]


def last_validation(folder: Path) -> float:
    """Validation NLL a token at the last step."""
    return validation(folder)[-1][1]


def compared(
    best_kd: str, sft: dict[str, dict[int, Path]], distil: Runs
) -> tuple[list[list[object]], list[str]]:
    """The rows of the table, and SFT's best steps."""
    seeds = tuple(sft[RATES[0]])
    best_sft = min(RATES, key=lambda rate: last_validation(sft[rate][seeds[0]]))
    rows: list[list[object]] = []
    steps = []
    for seed in seeds:
        kd, same = distil("kd", best_kd, seed), sft[best_sft][seed]
        faithful = max(
            (sft[rate][seed] for rate in RATES), key=lambda f: results(f)["student_after"]["faithfulness"]
        )
        seconds = cost(kd)["seconds_per_step"] / cost(same)["seconds_per_step"]
        as_long = max(1, round(cost(kd)["steps"] * seconds))
        longer = distil("sft", best_sft, seed, f"trainer.max_steps={as_long}")
        if not rows:
            for who in ("teacher", "student_before"):
                rows.append([who, "", *(f"{results(kd)[who][m]:.3f}" for m in METRICS), "", ""])
        rows += [
            row("KD", seed, kd),
            row("SFT, rate by validation NLL", seed, same),
            row("SFT, rate by test faithfulness", seed, faithful),
            row("SFT, as many seconds as KD", seed, longer),
        ]
        step, lowest = min(validation(same), key=lambda pair: pair[1])
        steps.append(
            f"seed {seed}: {lowest:.3f} at step {step} (KD at its last step: {last_validation(kd):.3f})"
        )
    return rows, steps


def main() -> None:
    """Search, run, tabulate."""
    options = parser(__doc__, runs=True)
    options.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = options.parse_args()
    first = asked.seeds[0]
    distil = Runs(asked.runs, asked.overrides)
    sft = {rate: {seed: distil("sft", rate, seed) for seed in asked.seeds} for rate in RATES}
    kd = {rate: distil("kd", rate, first) for rate in RATES}
    best_kd = min(RATES, key=lambda rate: last_validation(kd[rate]))
    rows, steps = compared(best_kd, sft, distil)
    searched: Sequence[Sequence[object]] = [
        [rate, f"{last_validation(kd[rate]):.3f}", f"{last_validation(sft[rate][first]):.3f}"]
        for rate in RATES
    ]
    parts = [
        f"Validation NLL at the last step, seed {first}:\n",
        markdown(["learning rate", "KD", "SFT"], searched),
        "Test rows (NLL and KL in nats a token):\n",
        markdown(HEADER, rows),
        f"SFT's lowest validation NLL on the way, {'; '.join(steps)}.\n",
    ]
    write(asked.output / "kd_against_sft.md", "KD against SFT on the embedded pair", parts)


if __name__ == "__main__":
    main()
