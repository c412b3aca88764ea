"""Fine-tuning that does not forget: new rows, learnt with the model's own base as its teacher, and without.

    OMP_NUM_THREADS=1 python benchmarks/forgetting.py

The model is the embedded teacher, which speaks the grammar's five kinds of answer. The new rows ask for
something else (the first sentence alone), and none of them shows an old answer. SFT learns them by
cross-entropy; the other by the same cross-entropy and a pull to what the base itself, its adapter off, says
about the same rows. Both are evaluated on new rows (validation) and on the old held-out ones (test). Writes
``benchmarks/results/forgetting.md``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from runs import ROOT, markdown, parser, results, run, validation, write

sys.path.insert(0, str(ROOT))

from distil.data.embedded import generate_rows

STEPS = (50, 100, 200, 400)
RUNS = {
    "SFT": ("method=sft",),
    "CE + KD to itself, α = .2": ("method=kd", "method.kd_loss_weight=0.2"),
    "CE + KD to itself, α = .5": ("method=kd", "method.kd_loss_weight=0.5"),
}
SHARED = (
    "name=forgetting",
    "model=embedded",
    "peft=lora",
    "model.student.path=distil:embedded/teacher",
    "model.teacher.path=self",
    "method.temperature=1",
    "data.max_length=160",
    "trainer.learning_rate=3e-3",
    "trainer.warmup_steps=10",
    "trainer.save_strategy=no",
    "eval.metrics=[likelihood,agreement]",
    "eval.generation_rows=0",
)


def brief(split: str, count: int) -> list[dict[str, Any]]:
    """New rows: the prompt asks for one sentence, and the answer is that."""
    return [
        {
            "prompt": f"{row['prompt']} One sentence only.",
            "response": re.split(r"(?<=[.!?]) |\n", row["response"])[0],
        }
        for row in generate_rows(split, count, 0)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON Lines of prompt and response."""
    lines = [json.dumps({key: row[key] for key in ("prompt", "response")}) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def main() -> None:
    """Make the rows, run, tabulate."""
    options = parser(__doc__, runs=True)
    options.add_argument("--train-rows", type=int, default=500)
    options.add_argument("--steps", type=int, nargs="+", default=STEPS)
    asked = options.parse_args()
    output = asked.runs.resolve()
    output.mkdir(parents=True, exist_ok=True)
    files = {
        "train": write_rows(output / "new_train.jsonl", brief("train", asked.train_rows)),
        "validation": write_rows(output / "new_validation.jsonl", brief("validation", 200)),
        "test": write_rows(output / "old_test.jsonl", generate_rows("test", 300, 0)),
    }
    keys = [f"data.{split}_file={path}" for split, path in files.items()]
    rows: list[list[object]] = []
    for label, method in RUNS.items():
        for steps in asked.steps:
            folder = run(
                *SHARED,
                *method,
                *keys,
                f"trainer.max_steps={steps}",
                f"trainer.eval_steps={steps}",
                *asked.overrides,
                output=output,
            )
            old = results(folder)
            if not rows:
                rows.append(["base", 0, "", f"{old['student_before']['nll']:.3f}", "0"])
            new = validation(folder)[-1][1]
            after = old["student_after"]
            rows.append([label, steps, f"{new:.3f}", f"{after['nll']:.3f}", f"{after['kl_to_teacher']:.3f}"])
    parts = [
        "NLL in nats a token; LoRA, one seed.\n",
        markdown(["", "steps", "new rows NLL", "old rows NLL", "old rows, KL to the base"], rows),
    ]
    write(asked.output / "forgetting.md", "Learning new rows, keeping the old", parts)


if __name__ == "__main__":
    main()
