"""Text that is shown as it is: nothing in it moves a cursor, colours a terminal or turns a line around."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """``text`` with U+FFFD for control characters (terminal escapes), what turns a direction, surrogates, and
    line breaks other than \\n.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _hidden(c) else "\ufffd" for c in text.replace("\r\n", "\n"))


def one_line(said: object, longest: int = 300) -> str:
    """``said`` on one line, its end replaced by an ellipsis where it has more than ``longest`` characters."""
    line = " ".join(str(said).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


TURNS = ("LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Bidirectional classes of characters that are nothing but a direction (UAX #9)."""
MARKS = "\u200e\u200f\u061c"
"""Those whose class is that of letters."""


def _hidden(character: str) -> bool:
    if character in MARKS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return True
    return unicodedata.bidirectional(character) in TURNS
