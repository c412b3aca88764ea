"""What was trained on: tokens, rollouts, and the means of loss and terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

OverRanks = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""


@dataclass
class Tally:
    """Running sums since the last log, and totals over the run; without the steps that were left out."""

    terms: list[tuple[Sequence[str], Tensor, int]] = field(default_factory=list)
    """Of the micro-batches of the step at hand: names, sums, and the scored tokens that they are over."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    loss: Tensor | None = None
    """Sum of the losses of ``steps`` steps: this process's share of them."""
    steps: int = 0
    scored_tokens: int = 0
    rollout_tokens: int = 0
    rollouts: int = 0

    def add_terms(self, names: Sequence[str], sums_K: Tensor, tokens: int) -> None:
        """Add the sum of each term over ``tokens`` scored tokens, should the step at hand be taken."""
        self.terms.append((names, sums_K, tokens))

    def add_step(self, loss: Tensor) -> None:
        """The step at hand is taken: add its loss and its terms."""
        self.loss = loss if self.loss is None else self.loss + loss
        self.steps += 1
        for names, sums_K, tokens in self.terms:
            for name, value_sum in zip(names, sums_K, strict=True):
                self.sums[name] = self.sums.get(name, torch.zeros_like(value_sum)) + value_sum
                self.tokens[name] = self.tokens.get(name, 0) + tokens
        self.terms = []

    def add_counts(self, counts_3: Sequence[int]) -> None:
        """Add scored tokens, tokens of rollouts, rollouts of the step at hand."""
        self.scored_tokens += counts_3[0]
        self.rollout_tokens += counts_3[1]
        self.rollouts += counts_3[2]

    def leave_out(self, counts_3: Sequence[int]) -> None:
        """The step at hand is not taken: its terms go, and what ``add_counts`` added."""
        self.terms = []
        self.add_counts([-count for count in counts_3])

    def since_log(self, over_ranks: OverRanks) -> dict[str, Any]:
        """The sums since the last log, over all processes: what a checkpoint keeps of them. JSON."""
        if not self.sums:
            return {}
        sums = list(self.sums.values())
        loss = torch.zeros_like(sums[0]) if self.loss is None else self.loss.to(sums[0])
        values = over_ranks(torch.stack([loss, *sums])).tolist()
        tokens = over_ranks(torch.tensor(list(self.tokens.values()), device=sums[0].device)).tolist()
        return {
            "loss": values[0],
            "steps": self.steps,
            "sums": dict(zip(self.sums, values[1:], strict=True)),
            "tokens": dict(zip(self.tokens, tokens, strict=True)),
        }

    def means(self, over_ranks: OverRanks = lambda own: own) -> dict[str, float]:
        """Since the last call: the mean loss of a step (none where all were left out), and the mean of each
        term per scored token (nats). Starts afresh."""
        state = self.since_log(over_ranks)
        if not state:
            return {}
        self.sums, self.tokens, self.loss, self.steps = {}, {}, None, 0
        terms = {
            f"{name}_per_token": value / max(state["tokens"][name], 1)
            for name, value in state["sums"].items()
        }
        return ({"loss": state["loss"] / state["steps"]} if state["steps"] else {}) | terms

    def go_on(self, since_log: Mapping[str, Any], device: torch.device, mine: bool) -> None:
        """Take back what ``since_log`` gave. ``mine``: true in one process alone, which brings the sums."""
        if not since_log:
            return

        def kept(value: float) -> Tensor:
            return torch.tensor(value if mine else 0.0, dtype=torch.float32, device=device)

        self.loss, self.steps = kept(since_log["loss"]), since_log["steps"]
        self.sums = {name: kept(value) for name, value in since_log["sums"].items()}
        self.tokens = {name: count if mine else 0 for name, count in since_log["tokens"].items()}

    def totals(self) -> dict[str, int]:
        """Totals over the run, which a checkpoint keeps."""
        return {
            "scored_tokens": self.scored_tokens,
            "rollout_tokens": self.rollout_tokens,
            "rollouts": self.rollouts,
        }
