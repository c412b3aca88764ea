"""Scarce data, a real pair: stories260K into its own layers 0, 2, 4, from 300 stories; CE against KD.

    OMP_NUM_THREADS=1 python benchmarks/stories.py --data ../shared/data

At equal steps and at equal seconds. Writes ``benchmarks/results/stories.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runs import ROOT, cost, machine, markdown, results, run, validation


def main() -> None:
    """Run, tabulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    arguments = parser.parse_args()
    model, texts = arguments.data / "models" / "stories260K", arguments.data / "tinystories"
    if not model.is_dir() or not texts.is_dir():
        raise SystemExit(f"--data {arguments.data}: no models/stories260K and tinystories there.")
    common = [
        f"model.teacher.path={model}",
        f"model.student.path={model}",
        "model.student.keep_layers=[0,2,4]",
        f"data.train_file={texts / 'train.jsonl'}",
        f"data.validation_file={texts / 'valid.jsonl'}",
        f"data.test_file={texts / 'test.jsonl'}",
        "data.max_train_rows=300",
        "data.max_length=256",
        "trainer.per_device_train_batch_size=16",
        "trainer.learning_rate=2e-3",
        "trainer.warmup_steps=50",
        "trainer.weight_decay=0.05",
        "trainer.adam_beta2=0.98",
        "trainer.lr_scheduler_type=cosine",
        "trainer.eval_steps=25",
        "eval.during_training_rows=200",
        "eval.metrics=[likelihood,agreement]",
        "eval.generation_rows=0",
        "name=stories",
    ]
    kd_keys = ["method=kd", "method.kd_loss_weight=1", "method.temperature=1"]
    kd = run(*common, *kd_keys, f"trainer.max_steps={arguments.steps}", output=arguments.output)
    sft = run(*common, "method=sft", f"trainer.max_steps={arguments.steps}", output=arguments.output)
    longer = round(arguments.steps * cost(kd)["seconds_per_step"] / cost(sft)["seconds_per_step"])
    long = run(*common, "method=sft", f"trainer.max_steps={longer}", output=arguments.output)
    rows = [["teacher", "", f"{results(kd)['teacher']['nll']:.4f}", "", "", ""]]
    for label, folder in (("kd", kd), ("ce, equal steps", sft), ("ce, equal seconds", long)):
        step, lowest = min(validation(folder), key=lambda pair: pair[1])
        after, spent = results(folder)["student_after"], cost(folder)
        seconds = f"{spent['seconds']['train']:.0f}"
        rows.append([label, spent["steps"], f"{after['nll']:.4f}", f"{lowest:.4f}", step, seconds])
    header = ["run", "steps", "test NLL", "lowest validation NLL", "at step", "training s"]
    text = f"# 300 stories: CE against KD\n\nMade by `stories.py` on {machine()}.\n\n{markdown(header, rows)}"
    (Path(__file__).parent / "results" / "stories.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
