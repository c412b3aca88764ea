"""Run by torchrun (or as one process): a method's name, a family, a folder, perhaps a checkpoint."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import torch

from distil.processes import ranks
from tests.training import Setup, build_method, losses, random_rows, tiny_llama

name, family, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
resume, world = [*map(Path, sys.argv[4:]), None][0], int(os.environ.get("WORLD_SIZE", "1"))
trainer = Setup(
    build_method(name),
    folder,
    family="llama" if family == "untied" else family,
    student=partial(tiny_llama, 1, tied=False) if family == "untied" else None,
    batch=4 // world,
    accumulation=2,
    steps=4,
    rows=random_rows(21),  # the end of an epoch divides by nothing
    arguments={
        "save_strategy": "steps",
        "save_steps": 3,
        **({"ddp_backend": "gloo"} if world > 1 else {}),
        **({"use_cpu": False} if ranks.zero() else {}),  # or accelerate leaves DeepSpeed out
    },
).train(resume)


def held(model: torch.nn.Module) -> int:
    """Numbers that this process keeps of the weights of ``model``, whoever cut them up."""
    local = (getattr(p, "to_local", lambda p=p: p)() for p in model.parameters())
    return sum(part.numel() + getattr(part, "ds_tensor", part.new_empty(0)).numel() for part in local)


holds = held(trainer.model), held(trainer.teacher)
student = trainer.shells.filled(trainer.model)
if trainer.args.process_index == 0:
    means = [{k: v for k, v in record.items() if "per_token" in k} for record in trainer.state.log_history]
    outcome = {
        "weights": torch.cat([p.detach().flatten() for p in student.parameters()]),
        "losses": losses(trainer),
        "norms": [r["grad_norm"] for r in trainer.state.log_history if "grad_norm" in r],
        "fused": trainer._student_forward._fused,
        "holds": holds,
        "means": means[:-1],
        "totals": trainer.tally.totals(),
    }
    torch.save(outcome, folder / "outcome.pt")
