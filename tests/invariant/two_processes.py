"""Run by torchrun (or as one process) from ``test_two_processes.py``: a method's name, a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from tests.training import Setup, build_method, losses, random_rows

name, folder, world = sys.argv[1], Path(sys.argv[2]), int(os.environ.get("WORLD_SIZE", "1"))
trainer = Setup(
    build_method(name),
    folder,
    batch=4 // world,
    accumulation=2,
    steps=4,
    rows=random_rows(21),  # the end of an epoch divides by nothing
    arguments={"save_strategy": "steps", "save_steps": 3, **({"ddp_backend": "gloo"} if world > 1 else {})},
).train()
if trainer.args.process_index == 0:
    means = [{k: v for k, v in record.items() if "per_token" in k} for record in trainer.state.log_history]
    outcome = {
        "weights": torch.cat([p.detach().flatten() for p in trainer.model.parameters()]),
        "losses": losses(trainer),
        "means": means[:-1],
        "totals": trainer.tally.totals(),
    }
    torch.save(outcome, folder / "outcome.pt")
