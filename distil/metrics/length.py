"""How long the answers are, and whether they end by themselves."""

from __future__ import annotations

from typing import ClassVar

from distil.metrics.base import Metric, Need, Observations, Value, mean, register_metric


@register_metric("length")
class Length(Metric):
    """A student that never learnt to stop shows here first."""

    values: ClassVar = {
        "response_tokens": Value("tokens", None, ".1f", "Mean length of an answer; its EOS counts."),
        "ended": Value("share", True, ".3f", "Generated answers that ended with EOS before the limit."),
    }
    requires = frozenset({Need.GENERATIONS})

    def compute(self, observed: Observations) -> dict[str, float | None]:
        """Means over the generated answers."""
        answers = observed.generations
        return {
            "response_tokens": mean([answer.tokens for answer in answers]),
            "ended": mean([answer.ended for answer in answers]),
        }
