"""Does a response mention what its instruction asks for, contradict nothing, and consist of whole sentences?

Both scores are pure functions of a text and the slots of its row (JSON): ``required``, one list of
alternatives a named slot; ``forbidden`` words; ``items`` with ``count``, the list that was asked for (count
0: none); ``sentences``, patterns in which ``[a|b]`` is a choice and ``*`` any required or forbidden word.
Words are compared whole and without regard to case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from distil.metrics.base import Metric, Need, Observations, Value, mean, register_metric

_WORD = re.compile(r"[A-Za-z]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def faithfulness(text: str, slots: Mapping[str, Any]) -> float:
    """Share of named slots that the text respects, less one slot for each contradiction; in [0, 1].

    A slot is respected if one of its alternatives occurs; an asked list if exactly ``count`` different
    items do. Contradictions are forbidden words (each counted once) and repeated items of the list (each
    repeat).
    """
    words = Counter(word.lower() for word in _WORD.findall(text))
    respected = [any(word.lower() in words for word in alternatives) for alternatives in slots["required"]]
    contradictions = sum(word.lower() in words for word in slots["forbidden"])
    if slots["count"]:
        mentions = [words[item] for item in slots["items"] if item in words]
        respected.append(len(mentions) == slots["count"])
        contradictions += sum(mentions) - len(mentions)
    return max(0.0, (sum(respected) - contradictions) / len(respected))


def fluency(text: str, slots: Mapping[str, Any]) -> float:
    """Share of the sentences that the grammar could have answered with, whatever slot values they name.

    So an invented word, a broken or unfinished sentence, a sentence said twice, and a sentence about another
    kind of thing (a castle's throne at the beach) count against it, and the wrong name does not: that is
    `faithfulness`. Line breaks end sentences. An empty text scores 0.
    """
    sentences = [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]
    if not sentences:
        return 0.0
    values = (word for alternatives in slots["required"] for word in alternatives)
    pattern = _pattern(tuple(slots["sentences"]), "|".join(sorted({*values, *slots["forbidden"]})))
    return sum(pattern.fullmatch(sentence) is not None for sentence in set(sentences)) / len(sentences)


@lru_cache(maxsize=4096)
def _pattern(sentences: Iterable[str], values: str) -> re.Pattern[str]:
    # Only "[", "|", "]" and "*" are notation; everything else is literal text.
    notation = {"[": "(?:", "]": ")", "|": "|", "*": f"(?:{values})"}
    literal = ("".join(notation.get(sign, re.escape(sign)) for sign in sentence) for sentence in sentences)
    return re.compile("|".join(f"(?:{sentence})" for sentence in literal))


@register_metric("faithfulness")
class Faithfulness(Metric):
    """Over the answers whose row has slots."""

    values: ClassVar = {
        "faithfulness": Value("0 to 1", True, ".3f", "What was asked for and is there, less contradictions."),
        "fluency": Value("share", True, ".3f", "Sentences of an answer that the grammar could have written."),
    }
    requires = frozenset({Need.GENERATIONS, Need.SLOTS})

    def compute(self, observed: Observations) -> dict[str, float | None]:
        """Means over answers."""
        answers = [(answer.text, answer.slots) for answer in observed.generations if answer.slots]
        return {
            "faithfulness": mean([faithfulness(*answer) for answer in answers]),
            "fluency": mean([fluency(*answer) for answer in answers]),
        }
