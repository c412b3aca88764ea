"""ROUGE-1, ROUGE-2 and ROUGE-L F-measures by ``rouge_score``, stemmer on, for text in any script."""

# mypy: disable-error-code="import-untyped, misc"
# Untyped libraries, and a base class from one.
from __future__ import annotations

import unicodedata
from typing import Any

import datasets
import evaluate
import regex
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

# Scripts written without spaces give a token a character, as is usual for ROUGE on Chinese or Japanese.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TOKEN = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}]]+", regex.V1)


class UnicodeTokenizer:
    """The default tokenizer of ``rouge_score`` on ASCII text, stemming included; words of any script else.

    The default knows a-z and 0-9 only and gives every other text a score of 0.
    """

    def __init__(self) -> None:
        self._stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words of letters, digits and their marks; ASCII words of more than 3 stemmed."""
        words = _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
        return [self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words]


class Rouge(evaluate.Metric):
    """Mean F-measures over predictions; of several references, the best counts."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="ROUGE-1, ROUGE-2 and ROUGE-L F-measures (0 to 1), stemmer on.",
            citation="Lin 2004, ROUGE: a Package for Automatic Evaluation of Summaries.",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string")),
                }
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, tokenizer=UnicodeTokenizer())
        scores = [
            scorer.score_multi(texts, text) for text, texts in zip(predictions, references, strict=True)
        ]
        return {kind: sum(score[kind].fmeasure for score in scores) / len(scores) for kind in ROUGE_TYPES}
