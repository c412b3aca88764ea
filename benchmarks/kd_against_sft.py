"""Does distillation help? KD against SFT on the embedded pair, each at its own best learning rate.

    OMP_NUM_THREADS=1 python benchmarks/kd_against_sft.py

Rates are chosen on the validation split with seed 0, the same grid for both; test rows are scored once a
seed. SFT gets two more chances beside equal steps: as many seconds as KD took, and its best step on the
validation split. Writes ``benchmarks/results/kd_against_sft.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runs import ROOT, cost, machine, markdown, results, run, validation

RATES = ("1.5e-3", "3e-3", "6e-3", "1.2e-2")
SEEDS = (0, 1, 2)
METRICS = ("nll", "faithfulness", "fluency", "kl_to_teacher", "rougeL")


def search(method: str, output: Path) -> tuple[str, list[tuple[str, float]]]:
    """The rate with the lowest validation NLL at the last step, and all that were tried."""
    tried = []
    for rate in RATES:
        folder = run(
            f"method={method}",
            f"trainer.learning_rate={rate}",
            "eval.generation_rows=0",
            "name=search",
            output=output,
        )
        tried.append((rate, validation(folder)[-1][1]))
    return min(tried, key=lambda pair: pair[1])[0], tried


def main() -> None:
    """Search, run, tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    output = parser.parse_args().output
    text = ["# KD against SFT, embedded pair\n", f"Made by `{__file__.split('/')[-1]}` on {machine()}.\n"]
    rows, searched = [], []
    best = {}
    for method in ("kd", "sft"):
        best[method], tried = search(method, output)
        searched += [(method, rate, f"{nll:.4f}") for rate, nll in tried]
    for seed in SEEDS:
        kd = run(
            "method=kd", f"trainer.learning_rate={best['kd']}", f"seed={seed}", "name=final", output=output
        )
        sft = run(
            "method=sft", f"trainer.learning_rate={best['sft']}", f"seed={seed}", "name=final", output=output
        )
        ratio = cost(kd)["seconds_per_step"] / cost(sft)["seconds_per_step"]
        longer = round(cost(kd)["steps"] * ratio)
        step, lowest = min(validation(sft), key=lambda pair: pair[1])
        long = run(
            "method=sft",
            f"trainer.learning_rate={best['sft']}",
            f"seed={seed}",
            f"trainer.max_steps={longer}",
            "name=final",
            output=output,
        )
        if seed == SEEDS[0]:
            before = results(kd)
            for who in ("teacher", "student_before"):
                rows.append([who, "", *(f"{before[who][m]:.3f}" for m in METRICS), "", ""])
        for label, folder in (("kd", kd), ("sft, equal steps", sft), ("sft, equal seconds", long)):
            after, spent = results(folder)["student_after"], cost(folder)
            rows.append(
                [
                    label,
                    seed,
                    *(f"{after[m]:.3f}" for m in METRICS),
                    spent["steps"],
                    f"{spent['seconds']['train']:.0f}",
                ]
            )
        text.append(f"Seed {seed}: SFT's best validation NLL on the way is {lowest:.3f}, at step {step}.\n")
    text += ["\nLearning rates (validation NLL at the last step, seed 0):\n"]
    text += [markdown(["method", "learning rate", "validation NLL"], searched)]
    text += ["\nTest rows:\n", markdown(["run", "seed", *METRICS, "steps", "training s"], rows)]
    target = Path(__file__).parent / "results" / "kd_against_sft.md"
    target.write_text("\n".join(text), encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
