"""What was trained on: tokens, rollouts, and the mean of each term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def add_terms(self, names: Sequence[str], sums_K: Tensor, tokens: int) -> None:
        """Add the sum of each term over ``tokens`` scored tokens."""
        for name, value_sum in zip(names, sums_K, strict=True):
            self.sums[name] = self.sums.get(name, torch.zeros_like(value_sum)) + value_sum
            self.tokens[name] = self.tokens.get(name, 0) + tokens

    def means(self, over_ranks: Callable[[Tensor], Tensor] = lambda own: own) -> dict[str, float]:
        """Mean of each term per scored token since the last call (nats); starts afresh.

        ``over_ranks`` sums a tensor over all processes.
        """
        if not self.sums:
            return {}
        sums_K = over_ranks(torch.stack(list(self.sums.values())))
        tokens_K = over_ranks(torch.tensor(list(self.tokens.values()), device=sums_K.device))
        names = [f"{name}_per_token" for name in self.sums]
        self.sums, self.tokens = {}, {}
        return dict(zip(names, (sums_K / tokens_K.clamp(min=1)).tolist(), strict=True))

    def totals(self) -> dict[str, int]:
        """Totals over the run, which a checkpoint keeps."""
        return {
            "scored_tokens": self.scored_tokens,
            "rollout_tokens": self.rollout_tokens,
            "rollouts": self.rollouts,
        }
