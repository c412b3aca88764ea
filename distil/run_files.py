"""The files of a run directory by name, for who writes them and for who reads them; what its status is."""

from __future__ import annotations

from pathlib import Path

from distil.system.files import read_json

CONFIG = "config.yaml"
"""The resolved config, secrets left out."""
ENVIRONMENT = "environment.json"
"""Versions, revision of the code, device, fingerprints of data and models."""
STATUS = "status.json"
"""``running``, ``done``, ``failed`` or ``interrupted``, with the reason and the run's identity."""
LOG = "run.log"
"""What the run said."""
METRICS = "metrics.jsonl"
"""Scalars of training, one line a logging step."""
RESULTS = "results.json"
"""One number a metric for each model; no costs, so that equal results are equal bytes."""
COST = "cost.json"
"""Tokens, seconds, memory, parameters."""
SAMPLES = "samples.jsonl"
"""A prompt, its reference, and what each model wrote."""
REPORT = "report.html"
"""The page about it."""
STUDENT = "student"
"""The product: model or adapter, tokenizer, card."""
CHECKPOINTS = "checkpoints"
"""What training can go on from."""
BAD_ROWS = "bad_rows.jsonl"
"""One line for each malformed row that was left out."""
BROKEN_STEPS = "broken_steps.jsonl"
"""One line for each optimizer step that was skipped."""
BEFORE = "before.json"
"""What teacher and untouched student came to."""
SPENT = "spent.json"
"""What the sessions of the run have taken so far."""

OF_EVERY_RUN = (CONFIG, ENVIRONMENT, STATUS)
OF_A_DONE_RUN = (METRICS, RESULTS, STUDENT)
"""Beside the others that its manifest lists."""


def status_of(folder: Path) -> str | None:
    """What the ``status.json`` of a run directory says; None where there is none that can be read."""
    try:
        status: str = read_json(folder / STATUS)["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status
