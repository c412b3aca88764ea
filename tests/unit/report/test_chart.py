from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil.report.chart import (
    HEIGHT,
    WIDTH,
    curve_chart,
    noisy,
    running_mean,
    strip_chart,
    ticks,
    undrawn,
)
from distil.report.run_directory import Metric, Results

NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_round_even_and_enclose(low: float, span: float) -> None:
    marks = ticks(low, low + span, 4)
    slack = 1e-6 * (marks[1] - marks[0])
    assert marks[0] <= low + slack
    assert marks[-1] >= low + span - slack
    assert 2 <= len(marks) <= 7
    digits = (marks[1] - marks[0]) / 10 ** math.floor(math.log10(marks[1] - marks[0]) + 1e-6)
    assert min(abs(digits - round_number) for round_number in (1, 2, 5)) < 1e-3


@given(st.lists(NUMBERS, min_size=1, max_size=80))
def test_any_curve_is_drawn_inside_its_picture(values: list[float | None]) -> None:
    svg = curve_chart("train/<loss>", tuple(enumerate(values)))
    if sum(value is not None and abs(value) < 1e100 for value in values) < 2:
        assert svg == "", "one dot is no curve"
        return
    for path in ET.fromstring(svg).iter("path"):
        for x, y in re.findall(r"[ML](\S+?) ([^MLh]+)", path.attrib["d"]):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT


def test_what_is_too_short_to_draw_is_said() -> None:
    assert undrawn("train/loss", ((20, 0.95614),)) == "train/loss 0.9561 at step 20"
    assert undrawn("train/loss", ((20, None), (1_040, 0.5), (1_060, 1e200))) == "train/loss 0.5 at step 1,040"
    assert undrawn("train/loss", ((20, None),)) == undrawn("train/loss", ()) == "train/loss: no finite value"


def test_a_value_that_is_not_there_is_a_gap() -> None:
    svg = curve_chart("a/b", ((0, 1.0), (1, 2.0), (2, None), (3, 1.0)))
    (path,) = ET.fromstring(svg).iter("path")
    assert path.attrib["d"].count("M") == 2


def test_long_noisy_curves_get_a_mean_and_smooth_ones_do_not() -> None:
    saw = tuple((i, float(i % 2)) for i in range(1000))
    line = tuple((i, float(i)) for i in range(1000))
    assert noisy(saw)
    assert not noisy(line)
    assert [len(list(ET.fromstring(curve_chart("a", c)).iter("path"))) for c in (saw, line)] == [2, 1]


def test_running_mean_keeps_a_constant_and_gaps() -> None:
    points = [(i, 3.0 if i != 5 else None) for i in range(20)]
    assert running_mean(points, 7) == points


def results(before: float, after: float, teacher: float | None, floor: float | None = None) -> Results:
    return Results(
        metrics=(),
        teacher=None if teacher is None else {"m": teacher},
        before={"m": before},
        after={"m": after},
        floor={} if floor is None else {"m": floor},
        evaluation={},
        data={},
        notes=(),
    )


@pytest.mark.parametrize("higher", [True, False])
def test_better_is_to_the_right(higher: bool) -> None:
    sign = 1 if higher else -1
    svg = strip_chart(results(sign * 1.0, sign * 2.0, sign * 3.0), Metric("m", higher_is_better=higher))
    x = {c.attrib["class"]: float(c.attrib["cx"]) for c in ET.fromstring(svg).iter("circle")}
    assert x["before"] < x["after"] < x["teacher"]


def test_no_strip_where_it_would_say_nothing() -> None:
    better = Metric("m", higher_is_better=True)
    assert strip_chart(results(1.0, 2.0, 3.0), Metric("m")) == ""
    assert strip_chart(results(1.0, 1.0, 1.0), better) == ""
    assert 'class="floor"' in strip_chart(results(1.0, 2.0, None, 3.0), better)
