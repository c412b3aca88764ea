"""Markdown: what all cards open with, and words that are not ours put into it unharmed."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 600
"""Characters of a text that is shown in a fence."""


def front(library: str) -> str:
    """The opening lines that a hub reads; ``library`` is what loads the model."""
    return f"---\nlibrary_name: {library}\npipeline_tag: text-generation\ntags: [distillation]\n---"


def plain(text: str) -> str:
    """``text`` on one line as it is: no Markdown, no HTML, no end of a table's cell."""
    return re.sub(r"[\\`*\[\]<>|#]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def fenced(text: str) -> str:
    """``text`` in a fence that nothing in it closes, cut after ``LONGEST`` characters."""
    text = text.strip() if len(text) <= LONGEST else f"{text[:LONGEST].strip()} …"
    return code(text or "(empty)", "text")


def code(text: str, language: str = "") -> str:
    """``text`` whole, as code, in a fence that nothing in it closes."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def table(rows: Iterable[Iterable[str]]) -> str:
    """Rows of Markdown as a table; the first is its head, numbers stand to the right of a first column."""
    head, *body = map(list, rows)
    lines = [head, ["---", *("--:" for _ in head[1:])], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def facts_table(facts: Iterable[tuple[str, str]]) -> str:
    """(what, how it is) as a table without a head, leaving out what is not known."""
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {told} |" for what, told in facts if told)])
