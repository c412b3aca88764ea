"""Text that is shown as it is: nothing in it moves a cursor, colours a terminal or turns a line around."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """``text`` with U+FFFD for control characters (terminal escapes), direction overrides, surrogates."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _hidden(c) else "\ufffd" for c in text.replace("\r\n", "\n"))


def _hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs") or unicodedata.bidirectional(character) in ("LRO", "RLO", "LRE", "RLE")
