"""Amounts as people read them."""

from __future__ import annotations


def human_bytes(amount: float) -> str:
    """Bytes as ``812 MB`` or ``4.3 GB``: thousands are steps of ten, and one decimal is enough."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{round(amount, 1):.3g} {units[0]}"


def duration(seconds: float) -> str:
    """``95.2`` as ``1 min 35 s``."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
