"""The colours of every table and picture: one a role, one a method, after the colour-blind safe set of Okabe
and Ito; those of its colours that are too pale for a line on white, or too near another, are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One of the texts or models that a report compares: its key, its name to the reader, its colours."""

    key: str
    label: str
    light: str
    """On a white page."""
    dark: str
    """On a dark page."""
    terminal: str
    """In a terminal, whose background may be either."""


REFERENCE = Role("reference", "reference", "#6B6B6B", "#A8A8A8", "#808080")
TEACHER = Role("teacher", "teacher", "#6D28D9", "#9061FF", "#8B5CF6")
BEFORE = Role("before", "student before", "#E69F00", "#F0B429", "#C98500")
AFTER = Role("after", "student after", "#009E73", "#2CC99B", "#0FA37B")

ROLES = (REFERENCE, TEACHER, BEFORE, AFTER)
MODELS = (TEACHER, BEFORE, AFTER)
"""The three that are evaluated, in the order of every table. The teacher's colour is no method's."""


@dataclass(frozen=True)
class Hue:
    """The colour of a line or a row of dots, on each kind of page."""

    light: str
    dark: str
    terminal: str


ORANGE = Hue("#C98000", "#F0B429", "#C98500")
BLUE = Hue("#0072B2", "#56B4E9", "#3A93D0")
PURPLE = Hue("#B8578D", "#E39BC4", "#C971A0")
GREEN = Hue("#009E73", "#2CC99B", "#0FA37B")
RUST = Hue("#8C2D04", "#E0562B", "#C0552A")
INDIGO = Hue("#4A3AA7", "#7D72E6", "#7C6FD0")
INK = Hue("#1C1F23", "#F2F4F6", "#808080")

HUES = (BLUE, ORANGE, GREEN, PURPLE, RUST, INDIGO, INK)
"""Any two differ for protanopes and deuteranopes too: a test simulates both."""
METHODS = {"sft": ORANGE, "kd": BLUE, "revkd": PURPLE, "gkd": GREEN}
"""Methods of which every page shows the same colour; others take what is left."""


def hues(names: Sequence[str]) -> dict[str, Hue]:
    """A hue for each of ``names`` (methods, or any groups). More names than hues go round again."""
    unknown = [name for name in dict.fromkeys(names) if name not in METHODS]
    known = {METHODS[name] for name in names if name in METHODS}
    # Those of known methods are kept free while there is room, so that a colour means one thing.
    left = [hue for hue in HUES if hue not in METHODS.values()] if known else []
    left = left or list(HUES)
    taken = {name: left[i % len(left)] for i, name in enumerate(unknown)}
    return {name: METHODS.get(name) or taken[name] for name in dict.fromkeys(names)}
