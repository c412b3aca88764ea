"""ROUGE (Lin 2004) of generated answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from distil.metrics.base import Metric, Need, Observations, Value, register_metric
from distil.metrics.modules import as_reference_lists, run_module


def compute_rouge(
    predictions: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]
) -> dict[str, float]:
    """Mean ROUGE-1, ROUGE-2 and ROUGE-L F-measures, stemmer on (Lin 2004).

    An empty prediction scores 0. Letters of every script count; no network is asked.

    Args:
        predictions: one text a row: a list, or a column of a data set.
        references: one text a row, or a list of them, of which the best counts.

    Returns:
        ``rouge1``, ``rouge2`` and ``rougeL``, means over the rows, from 0 to 1.

    Raises:
        ValueError: where predictions and references do not pair up.
    """
    lists = as_reference_lists(predictions, references)
    return run_module("rouge", predictions, lists)


@register_metric("rouge")
class Rouge(Metric):
    """Over the answers whose row has a reference. Noisy from seed to seed: rank nothing on one."""

    values: ClassVar = {
        "rouge1": Value("0 to 1", True, ".3f", "Word overlap with the reference, F-measure, stemmed."),
        "rouge2": Value("0 to 1", True, ".3f", "Overlap of word pairs with the reference, likewise."),
        "rougeL": Value("0 to 1", True, ".3f", "Longest common subsequence with the reference, likewise."),
    }
    requires = frozenset({Need.GENERATIONS})

    def compute(self, observed: Observations) -> dict[str, float | None]:
        """The mean over answers."""
        answers = [answer for answer in observed.generations if answer.reference.strip()]
        if not answers:
            return dict.fromkeys(self.values)
        scores = compute_rouge([a.text for a in answers], [a.reference for a in answers])
        return dict(scores)
