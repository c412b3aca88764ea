"""What was held equal, and curves read at an equal budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil.report.comparison.budget import direction, read_at
from distil.report.comparison.compare import compare
from distil.report.comparison.words import held_line
from tests.unit.report.made_up_sweep import write_job


def line(step: int, seconds: float, tokens: int, nll: float) -> dict[str, Any]:
    return {"step": step, "seconds": seconds, "tokens": tokens, "validation/nll_per_token": nll}


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9), st.floats(0.5, 12))
def test_a_curve_between_its_points(values: list[float], amount: float) -> None:
    points = [(float(i), value) for i, value in enumerate(values, 1)]
    got = read_at(points, amount)
    if 1 <= amount <= len(values):
        assert got == pytest.approx(np.interp(amount, range(1, len(values) + 1), values), abs=1e-6)
    elif amount > len(values) * (1 + 1e-8) or amount < 1 - 1e-8:
        assert got is None


def test_budgets_are_the_most_that_every_run_reached(tmp_path: Path) -> None:
    # kd spends twice the seconds and three times the tokens of sft a step.
    for seed in (0, 1):
        sft = [line(step, step * 1.0, step * 100, 1 - step / 1000 + seed / 100) for step in (100, 200, 300)]
        kd = [line(step, step * 2.0, step * 300, 0.8 - step / 1000 + seed / 100) for step in (100, 200)]
        write_job(tmp_path, "sft", seed, {"nll": 0.5}, curve=sft)
        write_job(tmp_path, "kd", seed, {"nll": 0.5}, curve=kd)
    budgets = compare([tmp_path]).budgets
    assert {kind: table.amount for kind, table in budgets.items()} == {
        "steps": 200, "tokens": 30_000, "seconds": 300,
    }  # fmt: skip
    expected = {"steps": (0.8, 0.6), "tokens": (0.7, 0.7), "seconds": (0.7, 0.65)}
    for kind, (sft_nll, kd_nll) in expected.items():
        (column,) = budgets[kind].columns
        assert column.cells["sft"].by_seed == pytest.approx({0: sft_nll, 1: sft_nll + 0.01})
        assert column.cells["kd"].by_seed == pytest.approx({0: kd_nll, 1: kd_nll + 0.01})
        assert budgets[kind].early
        assert not budgets[kind].unread


def test_a_group_that_was_evaluated_later_has_no_value(tmp_path: Path) -> None:
    write_job(tmp_path, "sft", 0, {"nll": 0.5}, curve=[line(100, 10, 100, 0.5)])
    write_job(tmp_path, "kd", 0, {"nll": 0.5}, curve=[line(100, 30, 100, 0.4)])
    table = compare([tmp_path]).budgets["seconds"]
    assert table.amount == 10
    assert table.unread == ("kd",)
    assert table.columns[0].cells["kd"].estimate is None
    assert table.columns[0].best is None


def test_runs_without_curves_have_no_budget(tmp_path: Path) -> None:
    write_job(tmp_path, "sft", 0, {"nll": 0.5}, curve=[])
    write_job(tmp_path, "kd", 0, {"nll": 0.5})
    assert compare([tmp_path]).budgets == {}


def test_what_was_held_equal(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_job(tmp_path, "sft", seed, {"nll": 0.5}, seconds=10)
        write_job(tmp_path, "kd", seed, {"nll": 0.4}, seconds=25)
    comparison = compare([tmp_path])
    assert {each.kind: each.equal for each in comparison.held} == {
        "steps": True, "tokens": True, "seconds": False,
    }  # fmt: skip
    assert held_line(comparison) == (
        "Held equal: steps and tokens. Not equal: seconds (from sft 10 s to kd 25 s, 2.5 ×)."
    )


@pytest.mark.parametrize(
    ("name", "better"),
    [("nll_per_token", False), ("kl_per_token", False), ("top1_agreement", True), ("learning_rate", None)],
)
def test_directions_are_told_by_names(name: str, better: bool | None) -> None:
    assert direction(f"validation/{name}") is better
