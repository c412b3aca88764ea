"""One metric's column: held to scipy's paired test, and to who is ahead of whom by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distil.report.comparison.statistics import Estimate
from distil.report.comparison.table import BETTER, EITHER, WORSE, column
from distil.report.comparison.words import spread
from distil.report.run_directory import Metric

LOWER = Metric("nll", "nats/token", False, ".3f")
HIGHER = Metric("accuracy", "share", True, ".1%")
NEITHER = Metric("response_tokens", "tokens", None, ".1f")

SFT = {0: 0.60, 1: 0.63, 2: 0.58}
KD = {0: 0.30, 1: 0.31, 2: 0.29}
CLOSE = {0: 0.61, 1: 0.60, 2: 0.60}
ALL: dict[str, dict[int, float | None]] = {"sft": {**SFT}, "kd": {**KD}, "revkd": {**CLOSE}}
AGAINST_SFT = {"sft": None, "kd": "sft", "revkd": "sft"}


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=6), st.booleans())
def test_a_verdict_is_that_of_the_paired_test(pairs: list[tuple[float, float]], higher: bool) -> None:
    ours, theirs = ({seed: pair[i] for seed, pair in enumerate(pairs)} for i in (0, 1))
    gaps = [a - b for a, b in pairs]
    if max(gaps) - min(gaps) < 1e-6 or abs(sum(gaps)) < 1e-6:  # of ties nothing is known here
        return
    got = column(HIGHER if higher else LOWER, {"base": theirs, "ours": ours}, {"base": None, "ours": "base"})
    test = stats.ttest_rel(list(ours.values()), list(theirs.values()))
    cell = got.cells["ours"]
    assert cell.difference is not None
    assert cell.difference.mean == pytest.approx(sum(gaps) / len(gaps), abs=1e-12)
    if abs(test.pvalue - 0.05) < 1e-6:
        return
    told_apart = test.pvalue < 0.05
    wanted = (BETTER if (sum(gaps) > 0) == higher else WORSE) if told_apart else EITHER
    assert cell.verdict == wanted
    ahead = "ours" if (sum(gaps) > 0) == higher else "base"
    assert got.leader == ahead
    assert got.best == (ahead if told_apart else None)
    assert got.rivals == (() if told_apart else tuple({"ours", "base"} - {ahead}))


def test_each_group_is_held_against_its_own_baseline() -> None:
    got = column(LOWER, ALL, {"sft": "nobody", "kd": "sft", "revkd": "kd"})
    differences = {group: cell.difference for group, cell in got.cells.items()}
    assert differences["sft"] is None
    assert differences["kd"] is not None
    assert differences["kd"].mean == pytest.approx((0.30 + 0.31 + 0.29 - 0.60 - 0.63 - 0.58) / 3)
    assert differences["revkd"] is not None
    assert differences["revkd"].mean == pytest.approx((0.61 + 0.60 + 0.60 - 0.30 - 0.31 - 0.29) / 3)
    assert [cell.verdict for cell in got.cells.values()] == ["", BETTER, WORSE]
    assert column(LOWER, ALL, {}).cells["kd"].difference is None


def test_what_is_not_ranked_has_means_alone() -> None:
    got = column(LOWER, ALL, AGAINST_SFT, ranked=False)
    assert (got.leader, got.best, got.rivals) == (None, None, ())
    for group, cell in got.cells.items():
        assert cell.by_seed == ALL[group]
        assert cell.estimate is not None
        assert (cell.difference, cell.verdict) == (None, "")


def test_neither_direction_is_better() -> None:
    got = column(NEITHER, ALL, AGAINST_SFT)
    assert (got.leader, got.best, got.rivals) == (None, None, ())
    assert got.cells["kd"].difference is not None
    assert got.cells["kd"].verdict == ""
    assert got.cells["revkd"].verdict == EITHER, "measured, and the difference may be none"
    chosen = {group: {seed: 8.0 * len(group) for seed in by_seed} for group, by_seed in ALL.items()}
    for values in (chosen, {group: {0: by_seed[0]} for group, by_seed in ALL.items()}):
        got = column(NEITHER, values, AGAINST_SFT)
        assert {cell.verdict for cell in got.cells.values()} == {""}, "without a spread nothing is said"


@pytest.mark.parametrize("lacking", [{0: 0.1, 1: None}, {0: None}, {}])
def test_a_group_that_lacks_a_value_has_no_mean_no_verdict_and_no_rival(lacking: dict[int, Any]) -> None:
    got = column(LOWER, {**ALL, "gkd": lacking}, {**AGAINST_SFT, "gkd": "sft"})
    assert got.cells["gkd"].by_seed == lacking
    assert got.cells["gkd"].estimate is None
    assert (got.cells["gkd"].difference, got.cells["gkd"].verdict) == (None, "")
    assert got.unvalued == ("gkd",)
    assert (got.leader, got.best, got.rivals) == ("kd", "kd", ())
    baseless = column(LOWER, {"sft": lacking, "kd": {**KD}}, AGAINST_SFT)
    assert baseless.cells["kd"].estimate is not None
    assert (baseless.cells["kd"].difference, baseless.cells["kd"].verdict) == (None, "")
    assert baseless.leader is None


def test_the_leaders_rivals_are_those_it_cannot_be_told_from() -> None:
    values = {
        "gkd": {0: 0.29, 1: 0.33, 2: 0.30},
        **ALL,
        "other": {0: 0.33, 1: 0.27, 2: 0.31},
        "alone": {9: 0.31},
    }
    got = column(LOWER, values, {})
    assert (got.metric, got.leader, got.best) == (LOWER, "kd", None)
    assert got.rivals == ("gkd", "other", "alone")
    assert column(LOWER, ALL, {}).best == "kd"


def test_one_group_leads_nobody() -> None:
    assert column(LOWER, {"kd": {**KD}}, {}).leader is None
    assert column(LOWER, {"kd": {**KD}, "sft": {**SFT}}, {}).leader == "kd"


@pytest.mark.parametrize("metric", [LOWER, HIGHER])
def test_a_leader_is_ahead_where_both_ran_and_of_two_such_the_better_mean_leads(metric: Metric) -> None:
    """Without a common seed nobody is ahead of anybody, however large the gap of the means."""
    sign = -1 if metric is LOWER else 1

    def leader(**groups: dict[int, float]) -> str | None:
        return column(
            metric, {g: {s: sign * v for s, v in each.items()} for g, each in groups.items()}, {}
        ).leader

    assert leader(a={0: 1.0}, b={0: 0.9}, c={5: 9.0}) == "a"
    assert leader(a={0: 1.0}, b={0: 1.0, 1: 5.0}, c={0: 0.0}) == "b"
    assert leader(a={0: 1.0, 7: -9.0}, b={0: 0.9, 8: 9.0}) == "a"
    assert leader(b={1: 0.2}, a={0: 0.1}) == "b"
    assert leader(a={0: 0.1}, b={1: 0.2}) == "b"


def test_seeds_may_come_in_any_order() -> None:
    backwards = {group: dict(reversed(by_seed.items())) for group, by_seed in ALL.items()}
    first, second = (column(LOWER, values, AGAINST_SFT) for values in (ALL, backwards))
    assert first == second


def test_what_floats_leave_over_is_no_interval() -> None:
    """Three seeds with one difference, as subtraction rounds it."""
    metric = Metric("top1_agreement", "share", True)
    estimate = Estimate(0.1132075, 0.1132075 - 1e-16, 0.1132075 + 1e-16, 3)
    assert estimate.half
    assert spread(estimate, metric, signed=True) == ("+0.113", "")
