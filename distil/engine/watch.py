"""What goes wrong slowly, said once with its number: a loss that jumps, rollouts that collapse."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from distil.engine.rollouts import Generated

logger = logging.getLogger(__name__)

INTERVAL = 10
"""Steps between two looks."""
ENOUGH = 16
"""Rollouts between two looks below which nothing is said about them."""
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
"""Mean loss since the last look, of the median of those before."""
SPIKE_NATS = 0.5
"""And above it by this: losses near 0 jump by nothing."""
REMEMBERED = 20
"""Looks whose losses a new one is held against; from a quarter of them on."""
GRAM = 4

Gathered = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""Gives what each process has."""


class Written:
    """Token sequences that were written between two looks: their lengths, repetitions and entropy."""

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

    def scalars(self) -> dict[str, float]:
        """Means and shares."""
        each = max(self.sequences, 1)
        return {
            "sequences": self.sequences,
            "length": self.tokens.total() / each,
            "unended": self.unended / each,
            "empty": self.empty / each,
            "repetition": self.repeated / max(self.grams, 1),
            "entropy": entropy(self.tokens.values()),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        counted = [self.sequences, self.unended, self.empty, self.grams, self.repeated]
        return {"counts": counted, "tokens": sorted(self.tokens.items())}

    def add_state(self, state: Mapping[str, Any]) -> None:
        """Add what ``state_dict`` gave."""
        sequences, unended, empty, grams, repeated = state["counts"]
        self.sequences += sequences
        self.unended += unended
        self.empty += empty
        self.grams += grams
        self.repeated += repeated
        self.tokens.update(dict(state["tokens"]))


def entropy(counts: Iterable[int]) -> float:
    """Entropy of a histogram in nats."""
    present = [count for count in counts if count]
    total = sum(present)
    return math.fsum(-c / total * math.log(c / total) for c in present) if total else 0.0


class Watch:
    """Looks at the training every ``INTERVAL`` steps, whatever is logged. ``said``: its warnings, one of a
    kind in a run.

    Args:
        limit: tokens of a rollout at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rollouts, self.references = Written(), Written()
        self.loss, self.steps = 0.0, 0
        self.losses: deque[float] = deque(maxlen=REMEMBERED)
        self.said: dict[str, str] = {}
        self._news: dict[str, float] = {}

    def see(self, rollouts: Sequence[Generated], references: Sequence[Sequence[int]]) -> None:
        """Take in what the student wrote, and what the data set has in its place."""
        for rollout in rollouts:
            self.rollouts.add(rollout.ids, rollout.ended)
        for ids in references:
            self.references.add(ids)

    def step(self, step: int, loss: float, gathered: Gathered = lambda own: [own]) -> None:
        """Take in a step and this process's share of its loss; warn of what is odd, every so many steps."""
        self.loss += loss
        self.steps += 1
        if step % INTERVAL == 0:
            self._take(_merged(gathered(self._own())))
            self._look(step)
            self._take(NOTHING)

    def news(self) -> dict[str, float]:
        """What rollouts were like at the last look, as scalars; once."""
        news, self._news = self._news, {}
        return news

    def _look(self, step: int) -> None:
        if self.steps:
            self._look_at_loss(step, self.loss / self.steps)
        if not self.rollouts.sequences:
            return
        theirs, references = self.rollouts.scalars(), self.references.scalars()
        if theirs["sequences"] >= ENOUGH:
            self._look_at_rollouts(step, theirs, references, self.limit)
        names = ("length", "unended", "empty", "repetition", "entropy")
        self._news = {f"rollout_{name}": theirs[name] for name in names}

    def _look_at_loss(self, step: int, loss: float) -> None:
        if len(self.losses) >= REMEMBERED // 4:
            usual = median(self.losses)
            if loss > SPIKE * usual and loss > usual + SPIKE_NATS:
                times = f", {loss / usual:.1f} times what it was before ({usual:.3g})" if usual > 0 else ""
                self._say(
                    "loss",
                    f"Step {step}: the loss is {loss:.3g}{times}. A lower trainer.learning_rate, more "
                    "trainer.warmup_steps or a lower trainer.max_grad_norm may help.",
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

    def _own(self) -> dict[str, Any]:
        """What this process has seen since the last look."""
        return {
            "rollouts": self.rollouts.state_dict(),
            "references": self.references.state_dict(),
            "loss": self.loss,
            "steps": self.steps,
        }

    def _take(self, seen: Mapping[str, Any]) -> None:
        self.rollouts, self.references = Written(), Written()
        self.rollouts.add_state(seen["rollouts"])
        self.references.add_state(seen["references"])
        self.loss, self.steps = seen["loss"], seen["steps"]

    def state_dict(self, gathered: Gathered = lambda own: [own]) -> dict[str, Any]:
        """What a checkpoint keeps, of all processes: a resumed run says the same."""
        of_all = {"losses": list(self.losses), "said": dict(self.said), "news": dict(self._news)}
        return _merged(gathered(self._own())) | of_all

    def load_state_dict(self, state: Mapping[str, Any], mine: bool = True) -> None:
        """Take back what ``state_dict`` gave. ``mine``: true in the process that brings the counts."""
        self._take(state if mine else NOTHING | {"steps": state["steps"]})
        self.losses = deque(state["losses"], maxlen=REMEMBERED)
        self.said, self._news = dict(state["said"]), dict(state["news"])


NOTHING: dict[str, Any] = {
    "rollouts": Written().state_dict(),
    "references": Written().state_dict(),
    "loss": 0.0,
    "steps": 0,
}


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several processes saw of the same steps."""
    whole = Watch(0)
    for part in parts:
        whole.rollouts.add_state(part["rollouts"])
        whole.references.add_state(part["references"])
    whole.loss, whole.steps = sum(part["loss"] for part in parts), parts[0]["steps"]
    return whole._own()
