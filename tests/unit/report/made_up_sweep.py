"""Writes many run directories as a sweep would leave them, with made-up numbers."""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.unit.report.made_up_run import HOSTILE, SAMPLES, write, write_lines

METRICS: dict[str, dict[str, Any]] = {
    "nll": {"unit": "nats/token", "higher_is_better": False, "format": ".3f", "description": "What it says."},
    "accuracy": {"unit": "share", "higher_is_better": True, "format": ".1%", "description": ""},
    "response_tokens": {"unit": "tokens", "higher_is_better": None, "format": ".1f", "description": ""},
}
EVALUATION = {
    "split": "test", "rows": 256, "scored_tokens": 13922, "generation_rows": 64, "max_new_tokens": 128,
    "do_sample": False, "sampling_temperature": 1.0, "top_k": 0, "top_p": 1.0,
}  # fmt: skip
OWN = {"gkd": {"temperature": 1.0, "lambda_gkd": 0.5}}


def config(method: str, seed: int, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A run's config; ``changes`` by dotted key."""
    whole: dict[str, Any] = {
        "name": "made_up",
        "seed": seed,
        "output_dir": "outputs",
        "method": {"name": method, "temperature": 2.0, "kd_loss_weight": 0.5, **OWN.get(method, {})},
        "model": {"name": "embedded", "student": {"path": "tiny", "keep_layers": None}},
        "peft": {"name": "none"},
        "data": {"name": "embedded", "max_train_rows": 500, "split_seed": 0},
        "trainer": {"max_steps": 400, "learning_rate": 0.003, "warmup_steps": 20, "save_steps": 100},
        "eval": {"name": "default", "sampling_temperature": 1.0, "metrics": ["likelihood"]},
        "tracker": {"name": "none", "tags": []},
    }
    for key, value in (changes or {}).items():
        *groups, last = key.split(".")
        place = whole
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return whole


def write_job(
    folder: Path,
    method: str,
    seed: int,
    scores: Mapping[str, float | None],
    *,
    changes: Mapping[str, Any] | None = None,
    by_hand: str = "",
    status: str = "done",
    reason: str | None = None,
    evaluation: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    before: float = 0.8,
    seconds: float = 10.0,
    curve: list[dict[str, Any]] | None = None,
    hostile: bool = False,
    name: str = "",
    finished: str = "2026-11-24T10:04:02+00:00",
) -> Path:
    """One finished run of ``method`` and ``seed`` with ``scores``; ``by_hand`` ends its command line."""
    mark = f"{zlib.crc32(repr(sorted((changes or {}).items())).encode()):08x}"
    run = folder / (name or f"{method}-embedded-none-s{seed}-{mark}")
    run.mkdir(parents=True)
    command = f"python run.py method={method} seed={seed} {by_hand}".strip()
    (run / "config.yaml").write_text(yaml.safe_dump(config(method, seed, changes)), encoding="utf-8")
    write(run, "status.json", {
        "status": status, "reason": reason, "identity": run.name, "command": command,
        "started": "2026-11-24T10:02:11+00:00", "finished": finished,
    })  # fmt: skip
    write(run, "environment.json", {
        "command": command, "versions": {"torch": "2.13.0", "wandb": "0.31"}, "device": "cpu", "threads": 1,
        "python": "3.11.9", "git": {"revision": "9f31c2d5a7be", "dirty": None}, **(environment or {}),
    })  # fmt: skip
    write(run, "results.json", {
        "metrics": {metric: METRICS.get(metric, METRICS["accuracy"]) for metric in scores},
        "teacher": dict.fromkeys(scores, 0.2),
        "student_before": dict.fromkeys(scores, before),
        "student_after": dict(scores),
        "floor": {"nll": 0.19},
        "evaluation": {**EVALUATION, **(evaluation or {})},
        "data": {"train_rows": 500, "validation_rows": 100, "test_rows": 256, "dropped": {}},
        "notes": [],
    })  # fmt: skip
    write(run, "cost.json", {
        "steps": 400, "scored_tokens": 300_000 + seed, "rollout_tokens": 0,
        "seconds": {"load": 1.0, "train": seconds, "evaluate": 3.0, "total": seconds + 4},
        "peak_memory_bytes": 800_000_000 + 1_000_000 * seed,
        "parameters": {"teacher": 820_352, "student": 127_296, "trainable": 127_296},
        "student_bytes": 512_000,
    })  # fmt: skip
    write_lines(run, "metrics.jsonl", curve if curve is not None else validation(seed, seconds))
    samples = [*([(text,) * 5 for text in HOSTILE] if hostile else []), *SAMPLES]
    keys = ("prompt", "reference", "teacher", "student_before", "student_after")
    write_lines(run, "samples.jsonl", [dict(zip(keys, sample, strict=True)) for sample in samples])
    return run


def validation(seed: int, seconds: float, steps: int = 400, best: float = 0.3) -> list[dict[str, Any]]:
    """An evaluation every forty steps, a training line between."""
    chance = random.Random(seed)
    lines = []
    for step in range(20, steps + 1, 20):
        clock = {"step": step, "seconds": seconds * step / 400, "tokens": step * 750}
        value = best + math.exp(-step / 120) + chance.gauss(0, 0.01)
        lines.append({**clock, "train/loss": value})
        if step % 40 == 0:
            lines.append({**clock, "validation/nll_per_token": value})
    return lines


def write_sweep(
    folder: Path, groups: Mapping[str, Mapping[int, float]], metric: str = "nll", **kwargs: Any
) -> Path:
    """A run for each method and seed, scoring as ``groups[method][seed]`` says."""
    for method, by_seed in groups.items():
        for seed, value in by_seed.items():
            write_job(folder, method, seed, {metric: value}, **kwargs)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
