"""Scarce data, a real pair: stories260K into its own layers 0, 2, 4, from 300 stories; CE against KD.

    OMP_NUM_THREADS=1 python benchmarks/stories.py --data ../shared/data

At equal steps and at equal seconds. Writes ``benchmarks/results/stories.md``.
"""

from __future__ import annotations

from pathlib import Path

from runs import ROOT, cost, markdown, parser, results, run, stories, validation, write


def main() -> None:
    """Run, tabulate."""
    options = parser(__doc__, runs=True)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--steps", type=int, default=300)
    asked = options.parse_args()
    common = [
        *stories(asked.data),
        "data.max_train_rows=300",
        "trainer.eval_steps=25",
        "eval.during_training_rows=200",
        "name=stories",
        *asked.overrides,
    ]
    kd_keys = ["method=kd", "method.kd_loss_weight=1", "method.temperature=1"]
    kd = run(*common, *kd_keys, f"trainer.max_steps={asked.steps}", output=asked.runs)
    sft = run(*common, "method=sft", f"trainer.max_steps={asked.steps}", output=asked.runs)
    longer = max(1, round(asked.steps * cost(kd)["seconds_per_step"] / cost(sft)["seconds_per_step"]))
    long = run(*common, "method=sft", f"trainer.max_steps={longer}", output=asked.runs)
    rows = [["teacher", "", f"{results(kd)['teacher']['nll']:.4f}", "", "", ""]]
    for label, folder in (("kd", kd), ("ce, equal steps", sft), ("ce, equal seconds", long)):
        step, lowest = min(validation(folder), key=lambda pair: pair[1])
        after, spent = results(folder)["student_after"], cost(folder)
        seconds = f"{spent['seconds']['train']:.0f}"
        rows.append([label, spent["steps"], f"{after['nll']:.4f}", f"{lowest:.4f}", step, seconds])
    header = ["run", "steps", "test NLL", "lowest validation NLL", "at step", "training s"]
    write(asked.output / "stories.md", "300 stories: CE against KD", [markdown(header, rows)])


if __name__ == "__main__":
    main()
