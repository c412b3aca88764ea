"""Pictures of a comparison as inline SVG: curves with bands, dots with intervals, quality against cost.

Colours come from the page (``.g3`` is the fourth group); markers and dashes tell groups apart without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import product

from distil.report.chart import Axis
from distil.report.comparison import words
from distil.report.comparison.budget import direction, timed
from distil.report.comparison.compare import Comparison
from distil.report.comparison.groups import Group
from distil.report.comparison.statistics import Estimate
from distil.report.comparison.style import places
from distil.report.comparison.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    better,
    breadth,
    dashes,
    frame,
    of_group,
    scale,
    short,
    svg,
    symbol,
    upright,
)
from distil.report.comparison.table import Column

ROW = 22
DRAWN = 120
"""Points of a curve that are drawn."""
MARKED = 12
"""Curves of at most so many points show their markers."""
NEAR = 1.2
"""How far beyond the values a picture reaches for intervals and references, in spans of the values."""
NAMED = 12
"""Up to so many groups are named inside a picture; the legend names them all."""
AWAY = 40
"""How far above or below its point a name may stand; one that finds no room there is left to the legend."""
LINE = 12
"""Height of a name."""


def key(comparison: Comparison, label: str) -> str:
    """The little picture of a group in the legend: its dash and its marker."""
    marker, dash = places(comparison)[label]
    number = [group.label for group in comparison.groups].index(label)
    return (
        f'<svg class="key g{number}" viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">'
        f'<path class="line" {dashes(dash)} d="M1 7H29"/>{symbol(marker, 15, 7)}</svg>'
    )


def curves(comparison: Comparison, name: str, kind: str) -> str:
    """A curve along steps, tokens or seconds: the mean over seeds, in a band from lowest to highest.

    Empty where no group has two points that one line joins.
    """
    folded = [(i, group, folded_curve(group, name, kind)) for i, group in enumerate(comparison.groups)]
    folded = [each for each in folded if each[2]]
    if not any(len(piece) > 1 for _, _, pieces in folded for piece in pieces):
        return ""
    points = [point for _, _, parts in folded for part in parts for point in part]
    end = max(spent for spent, *_ in points)
    marks = scale([0.0, end], LEFT, WIDTH - RIGHT).marks
    x = Scale(Axis(0, end, LEFT, WIDTH - RIGHT), tuple(mark for mark in marks if mark <= end * 1.0001))
    y = scale([value for _, *values in points for value in values], HEIGHT - BOTTOM, TOP)
    styles = places(comparison)
    parts = [*frame(x, y, kind), better(direction(name))]
    for i, group, pieces in folded:
        marker, dash = styles[group.label]
        drawn = ""
        for piece in pieces:
            line = "L".join(f"{x(spent):.1f} {y(mean):.1f}" for spent, _, mean, _ in piece)
            drawn += _band(piece, x, y) if len(group.runs) > 1 else ""
            drawn += f'<path class="line" {dashes(dash)} d="M{line}h0"/>'
        if sum(map(len, pieces)) <= MARKED:
            drawn += "".join(symbol(marker, x(p[0]), y(p[2])) for piece in pieces for p in piece)
        parts.append(of_group(i, drawn))
    told = ", ".join(group.label for _, group, _ in folded)
    return svg("curve", HEIGHT, f"{name} by {kind}: {told}", parts)


def _band(points: Sequence[Folded], x: Scale, y: Scale) -> str:
    upper = [f"{x(spent):.1f} {y(high):.1f}" for spent, _, _, high in points]
    lower = [f"{x(spent):.1f} {y(low):.1f}" for spent, low, _, _ in reversed(points)]
    return f'<path class="band" d="M{"L".join(upper + lower)}Z"/>'


Folded = tuple[float, float, float, float]
"""(spent, lowest, mean, highest) over the seeds of a group."""


def folded_curve(group: Group, name: str, kind: str) -> list[list[Folded]]:
    """The curve of a group at the steps that all of its runs logged, in pieces.

    A piece ends where one of the runs has no finite value: no line leads over that.
    """
    by_step = [timed(run, name, kind) for run in group.runs]
    common = sorted(set.intersection(*(set(points) for points in by_step)))
    stride = max(1, math.ceil(len(common) / DRAWN))
    pieces: list[list[Folded]] = [[]]
    for at in range(0, len(common), stride):
        steps = common[at : at + stride]  # neighbours of a long curve are averaged
        spent = [points[step][0] for points in by_step for step in steps]
        values = [[points[step][1] for step in steps] for points in by_step]
        finite = [[value for value in each if value is not None] for each in values]
        if finite != values:
            pieces.append([])
            continue
        means = [sum(each) / len(each) for each in finite]
        pieces[-1].append((sum(spent) / len(spent), min(means), sum(means) / len(means), max(means)))
    return [piece for piece in pieces if piece]


def _known(comparison: Comparison, column: Column) -> list[tuple[int, Group, Estimate]]:
    """The groups that have a mean: index, group, estimate."""
    pairs = ((i, group, column.cells[group.label].estimate) for i, group in enumerate(comparison.groups))
    return [(i, g, each) for i, g, each in pairs if each is not None]


def _in_sight(
    estimates: Iterable[Estimate], seeds: Sequence[float], others: Iterable[float] = ()
) -> list[float]:
    """``seeds``, and what lies near them of interval ends and ``others``: others would squeeze them."""
    low, high = min(seeds), max(seeds)
    span = high - low or abs(low) * 0.02 or 1
    ends = [end for each in estimates for end in (each.low, each.high) if end is not None]
    return [*seeds, *(v for v in (*ends, *others) if low - NEAR * span < v < high + NEAR * span)]


def _seeds(column: Column, group: Group) -> list[float]:
    return [value for value in column.cells[group.label].by_seed.values() if value is not None]


def dots(comparison: Comparison, column: Column) -> str:
    """A row a group: mean, 95 % interval, each seed; lines where teacher and untouched student stand."""
    shown = _known(comparison, column)
    if not shown:
        return ""
    by_seed = {group.label: _seeds(column, group) for _, group, _ in shown}
    scores = {who: each.get(column.metric.name) for who, each in comparison.references.items()}
    references = {who: value for who, value in scores.items() if value is not None}
    left = 14 + max(breadth(short(group.label)) for _, group, _ in shown)
    bottom = TOP + ROW * len(shown) + 4
    seeds = [value for values in by_seed.values() for value in values]
    if len(seeds) == 1 and not references:
        return ""  # a dot with nothing beside it
    values = _in_sight((each for _, _, each in shown), seeds, references.values())
    x = scale(values, left, WIDTH - RIGHT, about=3)
    parts = [*upright(x, bottom, TOP)]
    for who, value in references.items():
        if x.holds(value):
            place = f'x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP - 4}" y2="{bottom}"'
            parts.append(f'<line class="reference {who.replace(" ", "-")}" {place}/>')
    styles = places(comparison)
    for row, (i, group, each) in enumerate(shown):
        y = TOP + ROW * (row + 0.5)
        best = " best" if column.best == group.label else ""
        drawn = (
            f'<text class="name{best}" x="{left - 9:.0f}" y="{y + 4:.1f}">{escape(short(group.label))}</text>'
        )
        drawn += _whisker(each, x, y)
        for value in by_seed[group.label]:
            drawn += f'<circle class="seed" cx="{x(value):.1f}" cy="{y:.1f}" r="2.6"/>'
        parts.append(of_group(i, drawn + symbol(styles[group.label][0], x(each.mean), y)))
    parts.append(better(column.metric.higher_is_better, sideways=True, at=bottom + 26))
    told = ", ".join(f"{g.label} {words.mean(column.cells[g.label], column)}" for _, g, _ in shown[:NAMED])
    return svg("dots", bottom + 28, f"{column.metric.name}: {told}", parts)


def _whisker(each: Estimate, x: Scale, y: float) -> str:
    """The interval; an end beyond the picture is an arrow, not a bar."""
    if each.low is None or each.high is None:
        return ""
    ends = ""
    for end, sign in ((each.low, -1), (each.high, 1)):
        if x.holds(end):
            ends += f"M{x(end):.1f} {y - 4:.1f}v8"
        else:
            ends += f"M{x(end) - 5 * sign:.1f} {y - 4:.1f}l{5 * sign} 4l{-5 * sign} 4"
    return f'<path class="whisker" d="M{x(each.low):.1f} {y:.1f}H{x(each.high):.1f}{ends}"/>'


def frontier(comparison: Comparison, column: Column, cost: Column) -> str:
    """Quality against cost, by means; a line joins the groups that no other beats in both."""
    prices = {group.label: each.mean for _, group, each in _known(comparison, cost)}
    shown = [each for each in _known(comparison, column) if each[1].label in prices]
    places_of = [(prices[group.label], each.mean) for _, group, each in shown]
    if column.metric.higher_is_better is None or any(len({p[k] for p in places_of}) < 2 for k in (0, 1)):
        return ""
    x = scale([price for price, _ in places_of], LEFT, WIDTH - RIGHT - 4, log=True)
    values = _in_sight((each for _, _, each in shown), [quality for _, quality in places_of])
    y = scale(values, HEIGHT - BOTTOM, TOP)
    what = words.COST_NAMES.get(cost.metric.name, cost.metric.name)
    parts = [*frame(x, y, what, cost), better(column.metric.higher_is_better)]
    first, *rest = not_beaten(places_of, column.metric.higher_is_better)
    steps = "".join(f"H{x(places_of[k][0]):.1f}V{y(places_of[k][1]):.1f}" for k in rest)
    start = f"{x(places_of[first][0]):.1f} {y(places_of[first][1]):.1f}"
    parts.append(f'<path class="frontier" d="M{start}{steps}"/>')
    styles = places(comparison)
    for (i, group, each), (price, quality) in zip(shown, places_of, strict=True):
        drawn = symbol(styles[group.label][0], x(price), y(quality))
        if each.low is not None and each.high is not None:
            drawn = f'<path class="whisker" d="M{x(price):.1f} {y(each.low):.1f}V{y(each.high):.1f}"/>{drawn}'
        parts.append(of_group(i, drawn))
    if len(shown) <= NAMED:
        at = ((x(price), y(quality)) for price, quality in places_of)
        parts += _names([(*place, i, group.label) for (i, group, _), place in zip(shown, at, strict=True)])
    told = ", ".join(group.label for _, group, _ in shown[:NAMED])
    return svg("curve", HEIGHT, f"{column.metric.name} against {what}: {told}", parts)


def not_beaten(points: Sequence[tuple[float, float]], higher_is_better: bool) -> list[int]:
    """Indices of the points (cost, quality) that no other equals or beats in both, by rising cost."""
    sign = 1 if higher_is_better else -1
    kept: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])):
        if not kept or sign * points[i][1] > sign * points[kept[-1]][1]:
            kept.append(i)
    return kept


Box = tuple[float, float, float, float]
"""Left, right, top, bottom."""


def _names(points: Sequence[tuple[float, float, int, str]]) -> Iterator[str]:
    """A name beside each point, where it lies on no point and no other name and ends inside the frame."""
    taken: list[Box] = [(x - 5, x + 5, y - 5, y + 5) for x, y, *_ in points]
    moves = sorted(range(-AWAY, AWAY + 1, 4), key=abs)
    for x, y, i, label in sorted(points, key=lambda point: point[1]):
        name = short(label)
        width = breadth(name)
        for move, right in product(moves, (True, False)):
            start = x + 8 if right else x - 8 - width
            box = (start, start + width, y + move - LINE / 2, y + move + LINE / 2)
            inside = (
                box[0] >= LEFT and box[1] <= WIDTH and box[2] + 6 >= TOP and box[3] <= HEIGHT - BOTTOM + 4
            )
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                side = f'x="{x + 8:.1f}"' if right else f'x="{x - 8:.1f}" text-anchor="end"'
                place = f'{side} y="{y + move + 4:.1f}"'
                yield f'<text class="name s g{i}" data-g="{i}" {place}>{escape(name)}</text>'
                break


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
