"""The parts that the pictures of a comparison are drawn from: scales, markers, frames."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from distil.report.chart import Axis, ticks
from distil.report.comparison import words
from distil.report.comparison.style import DASHES
from distil.report.comparison.table import Column
from distil.system.printable import one_line, printable

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 16, 38
LOG_FROM = 8
"""A cost that spreads over this factor gets a logarithmic axis."""
LONGEST = 22
"""Letters of a group's name inside a picture."""
ROOM = 8.0 * LONGEST
"""Pixels of it at most."""
BROAD = frozenset("=+<>~@%&#MWmw")
"""Letters that take more than others."""

_SHAPES = (
    '<circle r="4.2"/>',
    '<rect x="-3.9" y="-3.9" width="7.8" height="7.8"/>',
    '<path d="M0-5L4.8 3.8H-4.8Z"/>',
    '<path d="M0-5.2L5.2 0L0 5.2L-5.2 0Z"/>',
    '<path d="M0 5L4.8-3.8H-4.8Z"/>',
    '<path d="M-1.6-4.8H1.6V-1.6H4.8V1.6H1.6V4.8H-1.6V1.6H-4.8V-1.6H-1.6Z"/>',
)


@dataclass(frozen=True)
class Scale:
    """From data to pixels, linear or logarithmic, with its ticks."""

    axis: Axis
    marks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of ``value``, kept inside the picture."""
        value = math.log10(max(value, 1e-300)) if self.log else value
        place = self.axis(value)
        low, high = sorted((self.axis.start, self.axis.end))
        return min(max(place, low), high)

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies inside the picture."""
        return self.axis.low <= (math.log10(max(value, 1e-300)) if self.log else value) <= self.axis.high


def scale(values: Sequence[float], start: float, end: float, about: int = 4, log: bool = False) -> Scale:
    """A scale that holds ``values``, its ends on round numbers unless it is logarithmic."""
    low, high = min(values), max(values)
    if log and low > 0 and high / low >= LOG_FROM:
        a, b = math.log10(low) - 0.08, math.log10(high) + 0.08
        decades = range(math.floor(a), math.ceil(b) + 1)
        marks = [m * 10.0**d for d in decades for m in (1, 2, 5) if a <= math.log10(m * 10.0**d) <= b]
        return Scale(Axis(a, b, start, end), tuple(marks[:: max(1, len(marks) // 5)]), log=True)
    if high - low <= 1e-9 * abs(high) + 1e-30:
        low, high = (low - abs(low) * 0.1, high + abs(high) * 0.1) if low else (0.0, 1.0)
    marks = ticks(low, high, about)
    return Scale(Axis(marks[0], marks[-1], start, end), tuple(marks))


def symbol(marker: int, x: float, y: float) -> str:
    """One marker, in the colour of the group around it."""
    return f'<use href="#m{marker}" x="{x:.1f}" y="{y:.1f}"/>'


def definitions() -> str:
    """The markers, once a page."""
    shapes = "".join(f'<g id="m{i}">{shape}</g>' for i, shape in enumerate(_SHAPES))
    head = 'class="definitions" width="0" height="0" aria-hidden="true"'
    return f"<svg {head}><defs>{shapes}</defs></svg>"


def of_group(index: int, drawn: str) -> str:
    """What belongs to one group: coloured, and dimmed when others are picked."""
    return f'<g class="s g{index}" data-g="{index}">{drawn}</g>'


def _tick(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def frame(x: Scale, y: Scale, what: str, cost: Column | None = None) -> Iterator[str]:
    """Grid and ticks of a picture of ``y`` over ``x``, which is ``what`` (with the unit of ``cost``)."""
    for value in y.marks:
        place = f'y1="{y(value):.1f}" y2="{y(value):.1f}"'
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" {place}/>'
        yield _tick(LEFT - 6, y(value) + 4, f"{value:.6g}", "end")
    for value in x.marks:
        yield _below(x(value), HEIGHT - BOTTOM + 15, number(value, cost))
    yield _tick(WIDTH - RIGHT, HEIGHT - 6, f"{escape(what)}{' (log)' if x.log else ''}", "end")


def upright(x: Scale, bottom: float, top: float) -> Iterator[str]:
    """Grid and ticks of a picture that has an x axis alone."""
    for value in x.marks:
        place = f'x1="{x(value):.1f}" x2="{x(value):.1f}"'
        yield f'<line class="grid" {place} y1="{top - 4}" y2="{bottom}"/>'
        yield _below(x(value), bottom + 14, f"{value:.6g}")


def _below(x: float, y: float, text: str) -> str:
    """A tick of an x axis. A long one at the right edge would be cut off."""
    inside = x + 3.5 * len(text) <= WIDTH
    return _tick(x if inside else WIDTH, y, text, "middle" if inside else "end")


def number(value: float, cost: Column | None = None) -> str:
    """A tick: ``120k``, or seconds and bytes in the cost's own words."""
    if cost is not None and cost.metric.unit == "s":
        size, unit = (1, "s") if value <= 120 else (60, "min") if value <= 7200 else (3600, "h")
        return f"{value / size:.3g} {unit}"
    if cost is not None and cost.metric.unit == "bytes":
        return words.amount(value, cost.metric)
    for scaled, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * scaled or (abs(value) >= scaled and value % (scaled / 10) == 0):
            return f"{value / scaled:.6g}{unit}"
    return f"{value:.6g}"


def better(higher: bool | None, sideways: bool = False, at: float = 0) -> str:
    """The word that says which way is better, at the foot of a picture (``at``)."""
    if higher is None:
        return ""
    if not sideways:
        return _tick(LEFT, HEIGHT - 6, "↑ better" if higher else "↓ better", "start")
    return _tick(WIDTH - RIGHT, at, "better →", "end") if higher else _tick(LEFT, at, "← better", "start")


def dashes(dash: int) -> str:
    """The attribute of a line's dash; none where it is solid."""
    return f'stroke-dasharray="{DASHES[dash]}"' if DASHES[dash] else ""


def breadth(name: str) -> float:
    """About how many pixels ``name`` takes inside a picture, of a broad font."""
    return sum(12.5 if unicodedata.east_asian_width(c) in "WF" else 10 if c in BROAD else 7.8 for c in name)


def short(label: str) -> str:
    """A group's name as it fits into a picture."""
    name = label = one_line(printable(label))
    for letters in range(LONGEST, 5, -1):
        name = words.middle_cut(label, letters)
        if breadth(name) <= ROOM:
            break
    return name


def svg(kind: str, height: float, told: str, parts: Sequence[str]) -> str:
    """The element: its class, its height, what it tells a reader who does not see it, its parts."""
    head = f'class="{kind}" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
    return f'<svg {head} aria-label="{escape(printable(told))}">{"".join(parts)}</svg>'
