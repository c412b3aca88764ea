"""The colours of every table and picture: one a role, of the colour-blind safe set of Okabe and Ito."""

from __future__ import annotations

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
TEACHER = Role("teacher", "teacher", "#0072B2", "#56B4E9", "#3A93D0")
BEFORE = Role("before", "student before", "#E69F00", "#F0B429", "#C98500")
AFTER = Role("after", "student after", "#009E73", "#2CC99B", "#0FA37B")

ROLES = (REFERENCE, TEACHER, BEFORE, AFTER)
MODELS = (TEACHER, BEFORE, AFTER)
"""The three that are judged, in the order of every table."""
