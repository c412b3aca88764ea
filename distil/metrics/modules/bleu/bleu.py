"""Corpus BLEU by ``sacrebleu``: its 13a tokenizer and exponential smoothing."""

# mypy: disable-error-code="misc"
# Its base class comes from an untyped library.
from __future__ import annotations

from itertools import zip_longest
from typing import Any

import datasets
import evaluate
from sacrebleu.metrics.bleu import BLEU


class Bleu(evaluate.Metric):
    """One score for the whole corpus, in the keys and on the scale (0 to 1) of ``evaluate``'s own module."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus BLEU (0 to 1) with sacreBLEU's tokenizer and smoothing.",
            citation="Papineni et al. 2002; Post 2018, A Call for Clarity in Reporting BLEU Scores.",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string")),
                }
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        # sacreBLEU wants streams: the first reference of every prediction, then the second (None: lacking).
        streams = [list(stream) for stream in zip_longest(*references)]
        score = BLEU().corpus_score(predictions, streams)
        return {
            "bleu": score.score / 100,
            "precisions": [precision / 100 for precision in score.precisions],
            "brevity_penalty": score.bp,
            "length_ratio": score.sys_len / score.ref_len if score.ref_len else 0.0,
        }
