"""The pictures of a comparison: every name and every tick can be read."""

from __future__ import annotations

import re
from html import unescape
from itertools import combinations
from pathlib import Path

import pytest

from distil.report.comparison import compare
from distil.report.comparison.charts import dots, frontier
from distil.report.comparison.svg import BOTTOM, HEIGHT, WIDTH, breadth, scale, short, upright
from tests.unit.report.made_up_sweep import write_job

NAME = re.compile(r'<text class="name[^>]* x="([\d.-]+)"( text-anchor="end")? y="([\d.-]+)">([^<]*)<')
TICK = re.compile(r'<text class="tick" x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">([^<]*)<')


@pytest.mark.parametrize("spread", [0.02, 1e-6])
def test_names_of_many_groups_lie_on_nothing_and_are_whole(tmp_path: Path, spread: float) -> None:
    """Twelve groups on a line, or in one heap: a name that finds no room is left to the legend."""
    for i in range(12):
        changes = {"method.temperature": 1 + i / 7}
        write_job(tmp_path, "kd", 0, {"nll": 0.5 + spread * i}, changes=changes, seconds=10 + spread * i)
    comparison = compare([tmp_path])
    seconds = next(column for column in comparison.costs if column.metric.name == "train_seconds")
    picture = frontier(comparison, comparison.columns[0], seconds)
    boxes = []
    for x, end, y, name in NAME.findall(picture):
        left = float(x) - breadth(name) if end else float(x)
        boxes.append((left, left + breadth(name), float(y) - 9, float(y) + 2))
    assert 2 <= len(boxes) <= 12
    assert all(
        left >= 0 and right <= WIDTH and bottom <= HEIGHT - BOTTOM + 5 for left, right, _, bottom in boxes
    )
    for one, other in combinations(boxes, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
        assert apart, (one, other)


@pytest.mark.parametrize(
    "end", ["temperature=1.142857142", "==== ++++ MMMM WWWW %%%%", "蒸留された小さいモデルの名前です" * 2]
)
def test_a_name_beside_its_row_is_whole(tmp_path: Path, end: str) -> None:
    """Broad letters take more room than others, and a long name leaves some of the picture."""
    for path in (f"one {end}", f"two {end}"):
        write_job(tmp_path, "kd", 0, {"nll": 0.5}, changes={"model.student.path": path})
    comparison = compare([tmp_path])
    picture = dots(comparison, comparison.columns[0])
    names = re.findall(r'<text class="name[^>]*x="([\d.]+)"[^>]*>([^<]*)<', picture)
    assert len(names) == 2
    for x, name in names:
        assert breadth(unescape(name)) <= float(x) <= WIDTH * 0.55, name
        assert "…" in name
        assert name.endswith(end[-3:])


def test_a_name_is_of_one_line() -> None:
    assert short("kd path=new\nline") == "kd path=new line"


def test_a_long_tick_at_the_right_edge_is_whole() -> None:
    ticks = TICK.findall("".join(upright(scale([0.10001, 0.10003], 100, WIDTH - 16, about=3), 90, 16)))
    assert len(ticks) >= 3
    for x, anchor, text in ticks:
        assert float(x) + (0 if anchor == "end" else 3.2 * len(text)) <= WIDTH, text
