"""Scores under the names that the library's users know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distil.metrics.base import ScoreTotals

LESS_IS_BETTER = ("nll_per_token", "perplexity", "kl_to_teacher")
"""Scores of an evaluation whose names do not say so to transformers, which looks for "loss"."""


def scores_of(totals: ScoreTotals, loss: str = "eval_loss") -> dict[str, float]:
    """What ``totals`` come to; ``loss``: the name of the negative log-likelihood a token. What could not be
    computed is left out."""
    scores = {
        loss: totals.nll_per_token,
        "perplexity": totals.perplexity,
        "kl_to_teacher": totals.kl_per_token,
        "top1_agreement": totals.top1_agreement,
    }
    return {name: value for name, value in scores.items() if value is not None}
