"""Run by torchrun (or as one process): steps that are broken in one of the processes are left out in all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from distil.engine.broken_steps import BrokenSteps
from distil.processes import ranks
from distil.run_files import BROKEN_STEPS
from tests.invariant.test_broken_steps import POISON, poisoned_teacher, rows
from tests.training import Setup, build_method, losses

folder, world = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1"))
setup = Setup(
    build_method("kd"),
    folder,
    batch=4 // world,
    steps=6,
    rows=rows(),
    teacher=poisoned_teacher,
    options={"shared_vocabulary": POISON, "broken_steps": BrokenSteps(4, folder / BROKEN_STEPS)},
    arguments={"ddp_backend": "gloo"} if world > 1 else {},
)
with ranks.joined(60):  # so that processes can ask each other
    trainer = setup.trainer()
    trainer.train()
    if ranks.is_main():
        outcome = {
            "weights": torch.cat([p.detach().flatten() for p in trainer.model.parameters()]),
            "losses": losses(trainer),
            "totals": trainer.tally.totals(),
            "skipped": trainer.broken_steps.skipped,
        }
        torch.save(outcome, folder / "outcome.pt")
