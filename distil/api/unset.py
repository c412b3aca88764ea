"""Values that nobody chose, told from equal ones that somebody did."""

from __future__ import annotations

from typing import Any


class Unset:
    """Marks a value that nobody chose: a default, or what follows from another field."""


class UnsetInt(Unset, int):
    """A whole number that nobody chose."""


class UnsetFloat(Unset, float):
    """A number that nobody chose."""


def unset(value: Any) -> Any:
    """The number ``value``, as one that nobody chose."""
    return UnsetInt(value) if isinstance(value, int) else UnsetFloat(value)


def plain(value: Any) -> Any:
    """``value`` as python's own number or list, whether anybody chose it or not."""
    if isinstance(value, UnsetInt):
        return int(value)
    if isinstance(value, UnsetFloat):
        return float(value)
    return list(value) if isinstance(value, (list, tuple)) else value
