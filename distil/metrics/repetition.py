"""Whether the answers loop: seq-rep-4 of Welleck et al. 2020 (arXiv 1908.04319), over words."""

from __future__ import annotations

from typing import ClassVar

from distil.metrics.base import Metric, Need, Observations, Value, mean, register_metric


def repeated_ngrams(text: str, n: int = 4) -> float:
    """Share of the n-grams of words (split at spaces) that occurred before in ``text``; 0 below n words."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@register_metric("repetition")
class Repetition(Metric):
    """0 where no four words occur twice; near 1 for text that loops."""

    values: ClassVar = {
        "repeated_4grams": Value("share", False, ".3f", "Four-word runs of an answer that it used before."),
    }
    requires = frozenset({Need.GENERATIONS})

    def compute(self, observed: Observations) -> dict[str, float | None]:
        """The mean over the generated answers."""
        return {"repeated_4grams": mean([repeated_ngrams(answer.text) for answer in observed.generations])}
