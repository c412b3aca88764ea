"""Amounts as people read them."""

from __future__ import annotations


def human_bytes(amount: float) -> str:
    """Bytes as ``812 MB`` or ``4.3 GB``: thousands are steps of ten, and one decimal is enough."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{round(amount, 1):.3g} {units[0]}"
