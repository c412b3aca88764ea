"""How well the model predicts the held-out responses."""

from __future__ import annotations

from typing import ClassVar

from distil.metrics.base import Metric, Observations, Value, register_metric


@register_metric("likelihood")
class Likelihood(Metric):
    """Sums over all scored tokens, divided and exponentiated once."""

    values: ClassVar = {
        "nll": Value("nats/token", False, ".3f", "Negative log-likelihood of a scored token."),
        "perplexity": Value("", False, ".2f", "exp(nll). Not comparable across tokenizers."),
        "bits_per_byte": Value(
            "bits/byte",
            False,
            ".3f",
            "nll_sum in bits per UTF-8 byte scored. Comparable across tokenizers.",
        ),
    }

    def compute(self, observed: Observations) -> dict[str, float | None]:
        """See ScoreTotals."""
        totals = observed.totals
        return {
            "nll": totals.nll_per_token,
            "perplexity": totals.perplexity,
            "bits_per_byte": totals.bits_per_byte,
        }
