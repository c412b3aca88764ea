"""Checks of config values: one line each, one message each."""

from __future__ import annotations

from collections.abc import Sequence

from distil.registry import unknown_name
from distil.types import InputError


def check(holds: bool, message: str) -> None:
    """Raise InputError(message) unless ``holds``."""
    if not holds:
        raise InputError(message)


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise InputError unless ``value`` is one of ``choices``; the message names the nearest."""
    check(value in choices, unknown_name(key, value, choices))
