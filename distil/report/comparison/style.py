"""How a group looks wherever it appears: a hue, and a marker and a dash that tell those of one hue apart."""

from __future__ import annotations

from distil.report.comparison.compare import Comparison
from distil.report.palette import HUES, Hue, hues

MARKERS = 6
DASHES = ("", "6 3", "2 3", "9 3 2 3")


def group_hues(comparison: Comparison) -> dict[str, Hue]:
    """By group: the hue of its method where methods were swept, else one of its own while they last."""
    if "method.name" in comparison.swept:
        by_method = hues([group.method for group in comparison.groups])
        return {group.label: by_method[group.method] for group in comparison.groups}
    return {group.label: HUES[i % len(HUES)] for i, group in enumerate(comparison.groups)}


def places(comparison: Comparison) -> dict[str, tuple[int, int]]:
    """By group: its marker and its dash. The first of each hue has a solid line."""
    seen: dict[Hue, int] = {}
    found = {}
    for i, (label, hue) in enumerate(group_hues(comparison).items()):
        turn = seen.get(hue, 0)
        seen[hue] = turn + 1
        found[label] = (i % MARKERS, turn % len(DASHES))
    return found
