"""Calls whose arguments do not fit: Python's bare TypeError, told with the nearest name and the way out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from distil.api.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])

HINTS = {
    "teacher_model_name": "a hub name or a folder",
    "student_model_name": "a hub name or a folder",
    "config": "a DistillationConfig, third; where it comes first, both models follow without their names",
}
"""What to give for arguments whose names do not say it."""


class CallError(ArgumentError, TypeError):
    """An argument that a call does not take, or lacks; a TypeError too, as Python's own."""


def checked(name: str, elsewhere: Mapping[str, str] | None = None) -> Callable[[F], F]:
    """Decorator: calls of a function or method that do not fit raise CallError in the words of its caller.

    Args:
        name: what the caller called. An empty one stands for the class of the object.
        elsewhere: names that belong to something else, and where they go.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*positional: Any, **named: Any) -> Any:
            called = name or type(positional[0]).__name__
            for given in set(named) & set(elsewhere or ()) - set(signature.parameters):
                raise CallError(f"{called} takes no {given!r}. It goes to {(elsewhere or {})[given]}.")
            bound(called, signature, positional, named)
            return function(*positional, **named)

        return cast("F", call)

    return decorate


def check_path(name: str, value: Any) -> Path:
    """``value``, its ``~`` written out. Raises ArgumentError unless it is a path."""
    if not isinstance(value, (str, Path)):
        raise ArgumentError(f"{name} is a {type(value).__name__}: give a path.")
    if value == "":
        raise ArgumentError(f"{name} is an empty text: give a path.")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ArgumentError(f"{name}={value}: there is no such home folder. Give the whole path.") from error


def bound(
    name: str, signature: inspect.Signature, positional: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments by name, ``self`` left out. Raises CallError where they do not fit ``signature``."""
    known = [parameter for parameter in signature.parameters if parameter != "self"]
    for given in named:
        if given not in known:
            lacking = [one for one in _lacking(signature, positional, named) if one != "self"]
            meant = get_close_matches(given, lacking, n=1)
            raise CallError(f"{name} takes no {given!r}. {nearest(given, meant or known)}")
    try:
        found = signature.bind(*positional, **named).arguments
    except TypeError as error:
        lacking = _lacking(signature, positional, named)
        if lacking:
            hint = next((f": {HINTS[key]}" for key in lacking if key in HINTS), "")
            raise CallError(f"{name} lacks {' and '.join(lacking)}{hint}.") from None
        raise CallError(f"{name}: {error}. Give arguments by their names.") from None
    return {key: value for key, value in found.items() if key != "self"}


def _lacking(
    signature: inspect.Signature, positional: tuple[Any, ...], named: Mapping[str, Any]
) -> list[str]:
    """Arguments that must be given, and were not."""
    return [
        parameter
        for parameter, kind in list(signature.parameters.items())[len(positional) :]
        if kind.default is inspect.Parameter.empty and parameter not in named
    ]


def nearest(name: str, known: Sequence[str]) -> str:
    """The one of ``known`` that was probably meant, or all of them."""
    near = get_close_matches(name, known, n=1)
    near = near or [one for one in known if len(name) > 2 and (one.startswith(name) or one.endswith(name))]
    return f"Did you mean {' or '.join(near[:2])}?" if near else f"There are: {', '.join(known)}."
