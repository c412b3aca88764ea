"""Writes run directories as a run would leave them, with made-up numbers: what the report's tests read."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

METRICS = {
    # name: (unit, higher_is_better, format, teacher, before, after, floor)
    "nll": ("nats/token", False, ".3f", 0.247, 0.802, 0.300, 0.236),
    "perplexity": ("", False, ".2f", 1.28, 2.23, 1.35, 1.27),
    "bits_per_byte": ("bits/byte", False, ".3f", 0.118, 0.383, 0.143, 0.113),
    "kl_to_teacher": ("nats/token", False, ".3f", 0.0, 0.561, 0.058, None),
    "top1_agreement": ("", True, ".1%", 1.0, 0.771, 0.948, None),
    "rouge1": ("", True, ".3f", 0.712, 0.523, 0.701, None),
    "rouge2": ("", True, ".3f", 0.561, 0.334, 0.547, None),
    "rougeL": ("", True, ".3f", 0.608, 0.431, 0.596, None),
    "bleu": ("", True, ".1f", 44.1, 21.7, 42.8, None),
    "response_tokens": ("tokens", None, ".1f", 53.8, 47.2, 54.1, None),
    "ended": ("", True, ".1%", 1.0, 0.938, 1.0, None),
    "faithfulness": ("", True, ".3f", 0.97, 0.19, 0.88, None),
}

SAMPLES = [
    (
        "Write a short story about Mara, who finds a lantern in the old mill.",
        "Mara went to the old mill early in the morning. Behind the wheel she found a lantern. She took it"
        " home, cleaned the glass and put it in the window.",
        "Mara walked to the old mill in the morning. Near the wheel she found a lantern. She carried it home"
        " and put it in the window.",
        "Tom walked to the harbour in the morning. Near the the boat she found a kite. She kite it and and",
        "Mara walked to the old mill in the evening. Near the wheel she found a lantern. She carried it home"
        " and put it in the window.",
    ),
    (
        "Plan a day in the harbour for two children.",
        "First watch the boats come in. Then eat fried fish on the pier. In the afternoon look for crabs.",
        "First watch the boats come in. Then eat fried fish on the pier. In the afternoon count the gulls.",
        "First watch the garden. Then eat the garden. In the afternoon",
        "First watch the boats come in. Then eat fried fish on the pier. In the afternoon look for shells.",
    ),
    (
        "Describe a fox in three sentences.",
        "The fox is red with a white tip to its tail. It eats mice and berries. At dusk it leaves the wood.",
        "The fox is red and has a white tail. It eats mice and berries. It sleeps in the wood.",
        "The owl is grey. It eats mice mice and. It sleeps in the barn.",
        "The fox is red and has a white tail. It eats berries. It sleeps in the wood.",
    ),
    (
        "List four things to take to the lake.",
        "A towel, a hat, a book and a ball.",
        "A towel, a hat, a ball and a book.",
        "A towel, a towel, a hat",
        "A towel, a hat, a book and a boat.",
    ),
]

HOSTILE = [
    "<script>alert(1)</script> and <img src=http://192.0.2.1/x.png onerror=alert(2)>",
    "{{7*7}} {% raw %} ${7*7} [red]not red[/red] [/] [link=http://192.0.2.1]x[/link] :smile:",
    "\x1b[31mescape\x1b[0m \x07bell \u202eright to left \ud800 lone",
    "Zürich, 東京の夜, مرحبا بالعالم, 👩\u200d🚀, e\u0301",
    "endless" * 3000,
]


def write_run(
    folder: Path,
    *,
    teacher: bool = True,
    status: str = "done",
    reason: str | None = None,
    results: bool = True,
    steps: int = 600,
    hostile: bool = False,
) -> Path:
    """A run directory in ``folder``: by default a finished run of ``kd`` on the embedded pair."""
    run = folder / f"{'kd' if teacher else 'sft'}-embedded-none-s0-4be1c09f"
    run.mkdir(parents=True)
    command = f"python run.py method={'kd' if teacher else 'sft'} data=embedded seed=0"
    write(run, "status.json", {
        "status": status, "reason": reason, "identity": "4be1c09f", "command": command,
        "started": "2026-11-24T10:02:11+00:00", "finished": "2026-11-24T10:04:02+00:00",
    })  # fmt: skip
    write(run, "environment.json", {
        "command": command,
        "versions": {"distil-runner": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "git": {"revision": "9f31c2d5a7be", "dirty": hostile},
        "device": "cpu", "python": "3.11.9", "platform": "Linux-6.1-x86_64", "threads": 2,
    })  # fmt: skip
    (run / "config.yaml").write_text(
        f"name: default\nseed: 0\nmethod:\n  name: {'kd' if teacher else 'sft'}\n  temperature: 1.0\n"
        "  kd_loss_weight: 1.0\nmodel:\n  name: embedded\npeft:\n  name: none\ndata:\n  name: embedded\n"
        "  max_length: 128\ntrainer:\n  max_steps: 600\n  learning_rate: 0.003\n",
        encoding="utf-8",
    )
    write_lines(run, "metrics.jsonl", curves(steps, teacher))
    if not results:
        return run
    write(run, "results.json", {
        "metrics": {n: {"unit": u, "higher_is_better": h, "format": f, "description": f"What {n} says."}
                    for n, (u, h, f, *_) in METRICS.items()},
        "teacher": {n: row[3] for n, row in METRICS.items()} if teacher else None,
        "student_before": {n: row[4] for n, row in METRICS.items()},
        "student_after": {n: row[5] for n, row in METRICS.items()},
        "floor": {n: row[6] for n, row in METRICS.items() if row[6] is not None},
        "evaluation": {"split": "test", "rows": 256, "scored_tokens": 13922, "generation_rows": 64,
                       "max_new_tokens": 128, "do_sample": False,
                       "sampling_temperature": 1.0, "top_k": 0, "top_p": 1.0},
        "data": {"train_rows": 1000, "validation_rows": 200, "test_rows": 256,
                 "dropped": {"without a scored token": 3, "too long": 9}},
        "notes": ["Teacher and student share 512 of their 512 ids."],
    })  # fmt: skip
    write(run, "cost.json", {
        "steps": steps, "scored_tokens": 519_204, "rollout_tokens": 0, "seconds_per_step": 0.0717,
        "seconds": {"load": 3.1, "train": 43.0, "evaluate": 31.7, "total": 95.4},
        "peak_memory_bytes": 812_000_000,
        "parameters": {"teacher": 820_352, "student": 127_296, "trainable": 127_296},
    })  # fmt: skip
    samples = [*([(t, t, t, t, t) for t in HOSTILE] if hostile else []), *SAMPLES]
    keys = ("prompt", "reference", "teacher", "student_before", "student_after")
    rows = [dict(zip(keys, sample, strict=True)) for sample in samples]
    write_lines(run, "samples.jsonl", [row if teacher else {**row, "teacher": None} for row in rows])
    (run / "student").mkdir()
    return run


def curves(steps: int, teacher: bool) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: the training loss every step, an evaluation every fifty."""
    chance = random.Random(0)
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        clock = {"step": step, "seconds": step * 0.07, "tokens": step * 865}
        nll = 0.31 + 0.55 * math.exp(-step / 90)
        noisy = nll * chance.gauss(1, 0.06)
        line = {**clock, "train/loss": noisy - 0.2 if teacher else noisy}
        if teacher:
            line["train/forward_kl_per_token"] = noisy - 0.2
        line["train/learning_rate"] = 0.003 * min(1, step / 30) * (1 - step / (steps + 1))
        lines.append(line)
        if step % 50 == 0 or step == 1:
            line = {**clock, "validation/nll_per_token": nll}
            if teacher:
                line["validation/kl_per_token"] = nll - 0.25
                line["validation/top1_agreement"] = 0.95 - 0.18 * math.exp(-step / 120)
            lines.append(line)
    return lines


def write(run: Path, name: str, value: Any) -> None:
    (run / name).write_text(json.dumps(value), encoding="utf-8")


def write_lines(run: Path, name: str, values: list[Any]) -> None:
    (run / name).write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
