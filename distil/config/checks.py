"""Checks of config values: one line each, one message each.

Modules above ``distil.config.schema`` import them from there, with the class whose keys they check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from distil.registry import unknown_name
from distil.types import InputError


def check(holds: bool, message: str) -> None:
    """Raise InputError(message) unless ``holds``."""
    if not holds:
        raise InputError(message)


def check_above_0(key: str, value: float) -> None:
    """Raise InputError unless ``value`` is above 0 and finite."""
    finite = is_finite(value)
    check(finite and value > 0, f"{key} must be above 0{'' if finite else ' and finite'}, got {value}.")


def is_finite(value: float) -> bool:
    """Whether a float holds ``value``, which may be a whole number of any size."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise InputError unless ``value`` is one of ``choices``; the message names the nearest."""
    check(value in choices, unknown_name(key, value, choices))
