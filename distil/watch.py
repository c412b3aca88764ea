"""What goes wrong slowly, said once with its number: a loss that jumps, rollouts that collapse."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from distil.rollouts import Generated

logger = logging.getLogger(__name__)

ENOUGH = 16
"""Rollouts between two logs below which nothing is said about them."""
EMPTY = 0.5
"""Share of rollouts without a token before their EOS."""
UNENDED = 0.95
"""Share of rollouts without an EOS."""
REPETITION = 0.5
"""Share of 4-grams that a rollout has already written, above that of the references."""
SHORT = 0.2
"""Length of rollouts, of that of the references."""
POOR = 0.5
"""Entropy of the tokens that are written, of that of the references'."""
SPIKE = 3.0
"""Loss, of the median of those logged before."""
SPIKE_NATS = 0.5
"""And above it by this: losses near 0 jump by nothing."""
REMEMBERED = 20
"""Logged losses that a new one is held against; from a quarter of them on."""
GRAM = 4


class Written:
    """Token sequences that were written between two logs: their lengths, repetitions and entropy."""

    def __init__(self) -> None:
        self.sequences = self.unended = self.empty = self.grams = self.repeated = 0
        self.tokens: Counter[int] = Counter()

    def add(self, ids: Sequence[int], ended: bool = True) -> None:
        """Count one sequence; of an ended one, the last id is its EOS."""
        grams = [tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)]
        self.sequences += 1
        self.unended += not ended
        self.empty += len(ids) <= int(ended)
        self.grams += len(grams)
        self.repeated += len(grams) - len(set(grams))
        self.tokens.update(ids)

    def sums(self) -> list[float]:
        """Numbers that add up over processes."""
        written = self.tokens.total()
        return [
            self.sequences, self.unended, self.empty, self.grams, self.repeated, written,
            written * entropy(self.tokens.values()),
        ]  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        counted = (self.sequences, self.unended, self.empty, self.grams, self.repeated)
        return {"counts": counted, "tokens": sorted(self.tokens.items())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.sequences, self.unended, self.empty, self.grams, self.repeated = state["counts"]
        self.tokens = Counter(dict(state["tokens"]))


def entropy(counts: Iterable[int]) -> float:
    """Entropy of a histogram in nats."""
    present = [count for count in counts if count]
    total = sum(present)
    return math.fsum(-c / total * math.log(c / total) for c in present) if total else 0.0


class Watch:
    """Looks at each log of the training. ``said`` holds its warnings, one of a kind in a run."""

    def __init__(self) -> None:
        self.rollouts, self.references = Written(), Written()
        self.losses: deque[float] = deque(maxlen=REMEMBERED)
        self.said: dict[str, str] = {}

    def see(self, rollouts: Sequence[Generated], references: Sequence[Sequence[int]]) -> None:
        """Take in what the student wrote, and what the data set has in its place."""
        for rollout in rollouts:
            self.rollouts.add(rollout.ids, rollout.ended)
        for ids in references:
            self.references.add(ids)

    def look(
        self, step: int, loss: float, limit: int, over_ranks: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:
        """Warn of what is odd since the last look, and give what it saw of rollouts as scalars.

        Args:
            step: the one just taken.
            loss: mean since the last log.
            limit: tokens of a rollout at most.
            over_ranks: sums a tensor over all processes.
        """
        self._look_at_loss(step, loss)
        if not self.rollouts.sequences:
            return {}
        sums_2K = torch.tensor([self.rollouts.sums(), self.references.sums()], dtype=torch.float64)
        theirs, references = (_scalars(sums_K) for sums_K in over_ranks(sums_2K).tolist())
        self.rollouts, self.references = Written(), Written()
        if theirs["sequences"] >= ENOUGH:
            self._look_at_rollouts(step, theirs, references, limit)
        names = ("length", "unended", "empty", "repetition", "entropy")
        return {f"rollout_{name}": theirs[name] for name in names}

    def _look_at_loss(self, step: int, loss: float) -> None:
        if len(self.losses) >= REMEMBERED // 4 and math.isfinite(loss):
            usual = median(self.losses)
            if loss > SPIKE * usual and loss > usual + SPIKE_NATS:
                self._say(
                    "loss",
                    f"Step {step}: the loss is {loss:.3g}, {loss / usual:.1f} times what it was before "
                    f"({usual:.3g}). A lower trainer.learning_rate, more trainer.warmup_steps or a lower "
                    "trainer.max_grad_norm may help.",
                )
        self.losses.append(loss)

    def _look_at_rollouts(
        self, step: int, rollouts: dict[str, float], references: dict[str, float], limit: int
    ) -> None:
        of = f"Step {step}: of the last {rollouts['sequences']:.0f} rollouts"
        if rollouts["empty"] >= EMPTY:
            self._say(
                "empty",
                f"{of} {rollouts['empty']:.0%} are empty: the student ends at once, and little is learnt "
                "from that. Start from a student that answers, or train on more of the references.",
            )
        elif rollouts["length"] < SHORT * references["length"]:
            self._say(
                "short",
                f"{of} the mean length is {rollouts['length']:.1f} tokens, that of the references "
                f"{references['length']:.1f}: the student may have collapsed to short answers.",
            )
        if rollouts["unended"] >= UNENDED and references["length"] < limit:
            self._say(
                "unended",
                f"{of} {rollouts['unended']:.0%} have no end after rollouts.max_new_tokens={limit}, though "
                f"references are {references['length']:.0f} tokens long: the student has not learnt to stop.",
            )
        if rollouts["repetition"] >= REPETITION + references["repetition"]:
            self._say(
                "repetition",
                f"{of} {rollouts['repetition']:.0%} of the {GRAM}-grams repeat one of the same rollout "
                f"({references['repetition']:.0%} in the references): the student repeats itself.",
            )
        if rollouts["entropy"] < POOR * references["entropy"] and rollouts["empty"] < EMPTY:
            self._say(
                "entropy",
                f"{of} the tokens have an entropy of {rollouts['entropy']:.2f} nats, those of the references "
                f"{references['entropy']:.2f}: the student writes few different ones.",
            )

    def _say(self, kind: str, line: str) -> None:
        if kind not in self.said:
            self.said[kind] = line
            logger.warning(line)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: a resumed run says the same."""
        return {
            "rollouts": self.rollouts.state_dict(),
            "references": self.references.state_dict(),
            "losses": list(self.losses),
            "said": dict(self.said),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.rollouts.load_state_dict(state["rollouts"])
        self.references.load_state_dict(state["references"])
        self.losses = deque(state["losses"], maxlen=REMEMBERED)
        self.said = dict(state["said"])


def _scalars(sums: Sequence[float]) -> dict[str, float]:
    """Means and shares from the sums of ``Written``."""
    sequences, unended, empty, grams, repeated, tokens, nats = sums
    each = max(sequences, 1)
    return {
        "sequences": sequences,
        "length": tokens / each,
        "unended": unended / each,
        "empty": empty / each,
        "repetition": repeated / max(grams, 1),
        "entropy": nats / max(tokens, 1),
    }
