"""BLEU (Papineni et al. 2002) of generated answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypedDict

from distil.metrics.base import Metric, Need, Observations, Value, register_metric
from distil.metrics.modules import as_reference_lists, run_module


class BleuScore(TypedDict):
    """Corpus BLEU and its parts."""

    bleu: float
    precisions: list[float]
    """Of 1- to 4-grams, smoothed."""
    brevity_penalty: float
    length_ratio: float
    """Words of the predictions to words of the references."""


def compute_bleu(
    predictions: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]
) -> BleuScore:
    """Corpus BLEU with sacreBLEU's tokenizer and smoothing (Papineni et al. 2002).

    Its 13a tokenizer splits at spaces and punctuation: score text of scripts without spaces by ROUGE. Where
    no prediction has four words, nothing is a 4-gram and BLEU is 0. No network is asked.

    Args:
        predictions: one text a row: a list, or a column of a data set.
        references: one text a row, or a list of them.

    Returns:
        ``bleu`` from 0 to 1 (x 100 is sacreBLEU's own scale), ``precisions`` of 1- to 4-grams, from 0 to 1,
        ``brevity_penalty`` from 0 to 1, and ``length_ratio``, words of the predictions to words of the
        references.

    Raises:
        ValueError: where predictions and references do not pair up.
    """
    lists = as_reference_lists(predictions, references)
    result: BleuScore = run_module("bleu", predictions, lists)  # type: ignore[assignment]  # the module's keys
    result["bleu"] = min(result["bleu"], 1.0)  # a mean of logarithms: 1 may come out a bit above
    return result


@register_metric("bleu")
class Bleu(Metric):
    """Over the answers whose row has a reference."""

    values: ClassVar = {
        "bleu": Value("0 to 1", True, ".3f", "Corpus BLEU with sacreBLEU's tokenizer and smoothing.")
    }
    requires = frozenset({Need.GENERATIONS})

    def compute(self, observed: Observations) -> dict[str, float | None]:
        """One score for all answers together."""
        answers = [answer for answer in observed.generations if answer.reference.strip()]
        if not answers:
            return {"bleu": None}
        return {"bleu": compute_bleu([a.text for a in answers], [a.reference for a in answers])["bleu"]}
