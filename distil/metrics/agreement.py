"""How close the model is to its teacher on the held-out responses."""

from __future__ import annotations

from typing import ClassVar

from distil.metrics.base import Metric, Need, Observations, Value, register_metric


@register_metric("agreement")
class Agreement(Metric):
    """At temperature 1, over the ids that both vocabularies share. The teacher itself has 0 and 1."""

    values: ClassVar = {
        "kl_to_teacher": Value(
            "nats/token", False, ".4f", "KL(teacher || model) of a scored token at T = 1."
        ),
        "top1_agreement": Value(
            "share", True, ".3f", "Scored tokens at which teacher and model find the same token most likely."
        ),
    }
    requires = frozenset({Need.TEACHER})

    def compute(self, observed: Observations) -> dict[str, float | None]:
        """See ScoreTotals."""
        totals = observed.totals
        return {"kl_to_teacher": totals.kl_per_token, "top1_agreement": totals.top1_agreement}
