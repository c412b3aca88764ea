"""What was trained on: tokens, rollouts, and the mean of each term."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Tally:
    """What was trained on: running sums of each term since the last log, and totals over the run."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    scored_tokens: int = 0
    rollout_tokens: int = 0
    rollouts: int = 0

    def add(self, name: str, value_sum: Tensor, tokens: int) -> None:
        """Add the sum of one term over ``tokens`` scored tokens."""
        self.sums[name] = self.sums.get(name, torch.zeros_like(value_sum)) + value_sum
        self.tokens[name] = self.tokens.get(name, 0) + tokens

    def means(self) -> dict[str, float]:
        """Mean of each term per scored token since the last call (nats); starts afresh."""
        means = {f"{k}_per_token": float(v) / max(self.tokens[k], 1) for k, v in self.sums.items()}
        self.sums, self.tokens = {}, {}
        return means

    def totals(self) -> dict[str, int]:
        """Totals over the run, which a checkpoint keeps."""
        return {
            "scored_tokens": self.scored_tokens,
            "rollout_tokens": self.rollout_tokens,
            "rollouts": self.rollouts,
        }
