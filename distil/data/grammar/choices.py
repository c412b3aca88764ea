"""Flat weighted choices in a line of text, and the exact probability of what they produce.

A template is text with choices: ``"She [found|saw] a kite [at once|at last]."`` Choices do not nest, and each
alternative weighs half of the one before it: unequal weights are what a small model learns well, and one rule
needs no numbers in the templates. No alternative of a choice may begin another one (`is_prefix_free`): read
from the left, a text then has one derivation, so its probability is one product and never a sum.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from random import Random

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def parts(template: str) -> list[list[str]]:
    """The template as a sequence of choices; fixed text is a choice with one alternative."""
    pieces = _CHOICE.split(template)
    return [piece.split("|") if i % 2 else [piece] for i, piece in enumerate(pieces) if i % 2 or piece]


def probabilities(count: int) -> list[float]:
    """The probability of each of ``count`` alternatives: each is half of the one before."""
    return [2 ** (count - 1 - i) / (2**count - 1) for i in range(count)]


def sample(template: str, random: Random) -> tuple[str, float]:
    """One text of the template and its log-probability in nats."""
    text: list[str] = []
    log_probability = 0.0
    for alternatives in parts(template):
        # The highest set bit of a number below 2^n falls on place i with exactly the halving probability.
        drawn = random.randrange(1, 2 ** len(alternatives)).bit_length()
        chosen = len(alternatives) - drawn
        text.append(alternatives[chosen])
        log_probability += math.log(probabilities(len(alternatives))[chosen])
    return "".join(text), log_probability


def log_probability(template: str, text: str) -> float:
    """Log-probability in nats of exactly ``text``; minus infinity if the template cannot produce it."""
    total, position = 0.0, 0
    for alternatives in parts(template):
        for alternative, probability in zip(alternatives, probabilities(len(alternatives)), strict=True):
            if text.startswith(alternative, position):
                total, position = total + math.log(probability), position + len(alternative)
                break
        else:
            return -math.inf
    return total if position == len(text) else -math.inf


def entropy(template: str) -> float:
    """Entropy of the template in nats, exact: choices are independent and derivations are unique."""
    return -sum(p * math.log(p) for choice in parts(template) for p in probabilities(len(choice)))


def is_prefix_free(alternatives: list[str]) -> bool:
    """Whether no alternative begins another one."""
    ordered = sorted(alternatives)
    return not any(after.startswith(before) for before, after in pairwise(ordered))
