"""Two small pictures as inline SVG: a curve over steps, and where three models stand on one scale.

Drawn by hand because they take their colours from the page's style sheet: a light and a dark page each get
theirs, with no image, no script, and no plotting library to import.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from distil.report.palette import MODELS
from distil.report.run_directory import Curve, Metric, Results

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 36
MARKED = 40
"""Curves of at most so many points show each point; longer noisy ones are faint under their mean."""
DRAWN = 400
"""Longer curves are averaged to about so many points."""
LARGEST = 1e100
"""Beyond this a value is not drawn: differences of larger ones overflow."""


@dataclass(frozen=True)
class Axis:
    """A linear scale from data ``low..high`` to pixels ``start..end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of ``value``."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart), ``about`` so many, that enclose ``low..high``."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [k * step for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def curve_chart(name: str, curve: Curve) -> str:
    """``curve`` as an SVG element; empty where it has fewer than two values (see ``undrawn``).

    A value that is not finite leaves a gap.
    """
    points = _points(curve)
    finite = [value for _, value in points if value is not None]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    if high - low <= 1e-9 * abs(high) + 1e-30:
        low, high = (low - abs(low) * 0.1, high + abs(high) * 0.1) if low else (0.0, 1.0)
    elif 0 <= low < 0.4 * high:
        low = 0
    y_ticks = ticks(low, high, 4)
    first, last = points[0][0], points[-1][0]
    y = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    x = Axis(first, max(last, first + 1), LEFT, WIDTH - RIGHT)
    x_ticks = [step for step in ticks(x.low, x.high, 4) if x.low <= step <= x.high and step == round(step)]
    label = f"{escape(name)} from step {first:,} to {last:,}, last value {finite[-1]:.4g}"
    return "".join(
        (
            f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
            *(_y_tick(y(value), value) for value in y_ticks),
            *(_x_tick(x(step), step) for step in x_ticks),
            f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">step</text>',
            *_lines(points, x, y),
            "</svg>",
        )
    )


def undrawn(name: str, curve: Curve) -> str:
    """In words what a curve of fewer than two values holds."""
    found = [f"{value:.4g} at step {step:,}" for step, value in _points(curve) if value is not None]
    return f"{name} {found[0]}" if found else f"{name}: no finite value"


def _points(curve: Curve) -> list[tuple[int, float | None]]:
    """``curve``, with None for what cannot be drawn."""
    return [(step, value if value is not None and abs(value) < LARGEST else None) for step, value in curve]


def _y_tick(y: float, value: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
    )


def _x_tick(x: float, step: float) -> str:
    return (
        f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{step:,.0f}</text>'
    )


def _lines(points: Sequence[tuple[float, float | None]], x: Axis, y: Axis) -> Iterator[str]:
    if len(points) <= MARKED:
        yield f'<path class="line" d="{_path(points, x, y)}"/>'
        for step, value in points:
            if value is not None:
                yield f'<circle class="point" cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.5"/>'
        return
    thin = running_mean(points, max(1, len(points) // DRAWN), stride=max(1, len(points) // DRAWN))
    if not noisy(points):
        yield f'<path class="line" d="{_path(thin, x, y)}"/>'
        return
    yield f'<path class="line faint" d="{_path(thin, x, y)}"/>'
    yield f'<path class="line" d="{_path(running_mean(thin, max(3, len(thin) // 20)), x, y)}"/>'


def noisy(points: Sequence[tuple[float, float | None]]) -> bool:
    """Whether the curve turns at more than a fifth of its points: a loss does, a schedule does not."""
    values = [value for _, value in points if value is not None]
    turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(values, values[1:], values[2:], strict=False))
    return 5 * turns > len(values)


def running_mean(
    points: Sequence[tuple[float, float | None]], width: int, stride: int = 1
) -> list[tuple[float, float | None]]:
    """Means of the finite values among ``width`` points centred at every ``stride``-th; gaps stay gaps."""
    means: list[tuple[float, float | None]] = []
    for i in range(0, len(points), stride):
        step, value = points[i]
        near = [v for _, v in points[max(0, i - width // 2) : i + width // 2 + 1] if v is not None]
        means.append((step, sum(near) / len(near) if near and (value is not None or stride > 1) else None))
    return means


def _path(points: Sequence[tuple[float, float | None]], x: Axis, y: Axis) -> str:
    """SVG path of ``points``, lifted at gaps. ``h0`` makes a lone point a dot."""
    parts, pen_down = [], False
    for step, value in points:
        if value is not None:
            parts.append(f"{'L' if pen_down else 'M'}{x(step):.1f} {y(value):.1f}{'' if pen_down else 'h0'}")
        pen_down = value is not None
    return "".join(parts)


def strip_chart(results: Results, metric: Metric) -> str:
    """Where teacher, before and after stand on one metric, better to the right; empty without a better."""
    if metric.higher_is_better is None:
        return ""
    rows = zip(MODELS, (results.teacher or {}, results.before, results.after), strict=True)
    stands = [(role, value) for role, scores in rows if (value := scores.get(metric.name)) is not None]
    floor = results.floor.get(metric.name)
    values = [value for _, value in stands] + ([floor] if floor is not None else [])
    if len(stands) < 2 or min(values) == max(values) or max(map(abs, values)) >= LARGEST:
        return ""
    worst, best = (min(values), max(values)) if metric.higher_is_better else (max(values), min(values))
    x = Axis(worst, best, 7, 133)
    marks = (
        [f'<line class="floor" x1="{x(floor):.1f}" x2="{x(floor):.1f}" y1="3" y2="17"/>']
        if floor is not None
        else []
    )
    marks += [f'<circle class="{role.key}" cx="{x(value):.1f}" cy="10" r="5"/>' for role, value in stands]
    label = ", ".join(f"{role.label} {value:.4g}" for role, value in stands)
    return (
        f'<svg class="strip" viewBox="0 0 140 20" role="img" aria-label="{label}">'
        f'<line class="track" x1="7" x2="133" y1="10" y2="10"/>{"".join(marks)}</svg>'
    )
