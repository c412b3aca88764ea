"""What was held equal, and curves read at an equal budget."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil.report.comparison.budget import EqualBudget, Held, along, direction, equal_budget, held, read_at
from distil.report.comparison.charts import curves, folded_curve
from distil.report.comparison.compare import compare
from distil.report.comparison.costs import COSTS, cost_of, spent
from distil.report.comparison.words import budget_line, held_line
from distil.report.run_directory import Metric, Results, RunRecord
from tests.unit.report.made_up_sweep import validation, write_job


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


def record(
    seed: int = 0,
    nll: dict[int, float | None] | None = None,
    tokens: dict[int, float] | None = None,
    cost: dict[str, Any] | None = None,
    **curves: dict[int, float | None],
) -> RunRecord:
    """A run of which only its validation curves, its clock of tokens and its cost are known."""
    named = {f"validation/{name}": tuple(points.items()) for name, points in curves.items()}
    if nll is not None:
        named["validation/nll_per_token"] = tuple(nll.items())
    nothing: dict[str, Any] = dict.fromkeys(
        ("status", "reason", "started", "finished", "command", "config_text", "environment", "results")
    )
    return RunRecord(
        **nothing,
        path=Path(f"run-{seed}"),
        config={"seed": seed},
        cost=cost,
        curves=named,
        clocks={} if tokens is None else {"tokens": tokens},
    )


def budget(kind: str, **groups: list[RunRecord]) -> EqualBudget:
    found = equal_budget(groups, {}, kind)
    assert found is not None
    return found


def test_what_a_run_spent() -> None:
    cost = {
        "steps": 4, "scored_tokens": 5, "rollout_tokens": 7, "seconds": {"train": 1.5, "total": 2.5},
        "peak_memory_bytes": 9, "parameters": {"trainable": 3}, "student_bytes": 8,
    }  # fmt: skip
    assert [spent(cost, kind) for kind in ("steps", "tokens", "seconds")] == [4, 12, 1.5]
    assert spent({"scored_tokens": 5}, "tokens") == 5
    assert spent({"scored_tokens": 5, "rollout_tokens": None}, "tokens") == 5
    assert spent({"rollout_tokens": 7}, "tokens") is None
    assert [spent({}, kind) for kind in ("steps", "tokens", "seconds")] == [None] * 3
    for odd in (math.nan, 1e101, "4", True):
        assert spent({"steps": odd}, "steps") is None
    run = record(cost=cost)
    assert {metric.name: cost_of(run, read) for metric, read in COSTS} == {
        "train_seconds": 1.5, "total_seconds": 2.5, "steps": 4, "tokens": 12, "sampled_tokens": 7,
        "peak_memory": 9, "trainable_parameters": 3, "student_size": 8,
    }  # fmt: skip
    assert {cost_of(record(), read) for _, read in COSTS} == {None}


def test_equal_is_what_is_near_and_known_of_all() -> None:
    def cost(steps: int, tokens: int | None, seconds: float) -> dict[str, Any]:
        return {"steps": steps, "scored_tokens": tokens, "seconds": {"train": seconds}}

    near = {"a": [record(cost=cost(3, 990, 95.0)), record(cost=cost(3, 1000, 97.0))],
            "b": [record(cost=cost(3, 1000, 100.0))]}  # fmt: skip
    assert held(near) == (
        Held("steps", True, {"a": 3, "b": 3}),
        Held("tokens", True, {"a": 995, "b": 1000}),
        Held("seconds", True, {"a": 96, "b": 100}),
    )
    far = {"a": [record(cost=cost(3, 989, 94.0))], "b": [record(cost=cost(4, 1000, 100.0))]}
    assert [each.equal for each in held(far)] == [False] * 3
    partly = {"a": [record(cost=cost(3, None, 1.0)), record()], "b": [record(cost=cost(3, 5, 1.0))]}
    assert [(each.equal, each.means) for each in held(partly)] == [
        (None, {"b": 3}), (None, {"b": 5}), (None, {"b": 1}),
    ]  # fmt: skip


def test_points_of_a_curve_where_their_place_is_known() -> None:
    run = record(nll={1: 0.5, 2: None, 3: 0.3, 4: 1e200}, tokens={1: 10.0, 3: 30.0, 4: 1e200})
    name = "validation/nll_per_token"
    assert along(run, name, "steps") == [(1, 0.5), (2, None), (3, 0.3), (4, None)]
    assert along(run, name, "tokens") == [(10, 0.5), (30, 0.3)]
    assert along(run, name, "seconds") == along(run, "validation/none", "steps") == []


def test_a_place_is_met_but_for_rounding() -> None:
    """The mean of many tokens may be off in its last digits, whatever its size."""
    for size in (1e-6, 1.0, 1e9):
        points = [(size, 0.5), (2 * size, None), (3 * size, 0.1)]
        for place, value in ((size, 0.5), (3 * size, 0.1)):
            for off in (-1e-11, 0, 1e-11):
                assert read_at(points, place * (1 + off)) == value
        assert read_at(points, size * (1 - 1e-7)) is None
        assert read_at(points, 3 * size * (1 + 1e-7)) is None
    assert read_at([(0.0, 0.5)], 0.0) == 0.5


def test_beside_the_ends_as_far_as_is_said_and_no_further() -> None:
    for place in (99.0, 101.0):
        assert read_at([(place, 0.5)], 100.0, 0.01) == 0.5
    for place in (98.9, 101.1):
        assert read_at([(place, 0.5)], 100.0, 0.01) is None


def test_the_columns_are_the_curves_with_a_direction_that_all_runs_have() -> None:
    first = record(0, {10: 0.5}, kl_per_token={10: 0.3}, learning_rate={10: 0.1}, top1_agreement={10: 0.7})
    other = record(1, {10: 0.4}, learning_rate={10: 0.1}, top1_agreement={10: 0.8})
    table = equal_budget({"a": [first], "b": [other]}, {"b": "a"}, "steps")
    assert table is not None
    assert [column.metric for column in table.columns] == [
        Metric("top1_agreement", "", True, ".3f"), Metric("nll", "", False, ".3f"),
    ]  # fmt: skip
    assert [cell.by_seed for cell in table.columns[0].cells.values()] == [{0: 0.7}, {1: 0.8}]
    assert equal_budget({"a": [first], "b": [record(1)]}, {}, "steps") is None
    assert equal_budget({"a": [first]}, {}, "tokens") is None
    loss = replace(record(0), curves={"train/loss": ((10, 0.5),)})
    assert equal_budget({"a": [loss]}, {}, "steps") is None


@pytest.mark.parametrize(
    ("recorded", "rows"),
    [(((100, 50), (100, 50)), 50), (((100, 500), (100, 500)), 100), (((100, 50), (40, 50)), None),
     (((100, 50), (100, None)), None), (((None, 50), (None, 50)), None)],
)  # fmt: skip
def test_the_curves_are_of_so_many_rows_where_all_runs_say_so(
    recorded: tuple[tuple[int | None, int | None], ...], rows: int | None
) -> None:
    runs = []
    for seed, (there, most) in enumerate(recorded):
        run = record(seed, {10: 0.5})
        config = {**run.config, "eval": {"during_training_rows": most}}
        results = Results((), None, {}, {}, {}, {}, {"validation_rows": there}, ())
        runs.append(replace(run, config=config, results=results))
    assert budget("steps", a=runs[:1], b=runs[1:]).rows == rows


def test_some_run_went_on_beyond() -> None:
    def early(kind: str, *ends: int) -> bool:
        runs = [record(i, {end: 0.5}, {end: float(end)}, top1_agreement={1: 0.1, end: 0.2})
                for i, end in enumerate(ends)]  # fmt: skip
        return budget(kind, a=runs[:1], b=runs[1:]).early

    assert [early("steps", 200, end) for end in (200, 201)] == [False, True]
    assert [early("tokens", 10_000, end) for end in (10_000, 10_100, 10_101)] == [False, False, True]
    assert not early("steps", 10**9, 10**9)


def test_a_run_that_was_evaluated_late_is_unread_and_no_lost_one() -> None:
    """Within a hundredth its first evaluation counts as one at the budget."""
    whole = record(0, {50: 0.6, 100: 0.5}, {50: 50.0, 100: 100.0})
    for first, read in ((100.0, True), (101.0, True), (101.5, False)):
        table = budget("tokens", a=[whole], b=[record(1, {100: 0.4}, {100: first})])
        assert table.amount == 100
        assert table.columns[0].cells["b"].by_seed == {1: 0.4 if read else None}
        assert (table.unread, table.lost) == (() if read else ("b",), ())
    # Of two curves the later one says when a run was first evaluated.
    two = record(1, {100: 0.4}, {10: 10.0, 100: 100.0, 120: 120.0}, top1_agreement={120: 0.4})
    other = record(0, {10: 0.6, 100: 0.5}, {10: 10.0, 100: 100.0}, top1_agreement={10: 0.1, 100: 0.2})
    table = budget("tokens", a=[other], b=[two])
    assert (table.amount, table.unread, table.lost) == (100, ("b",), ())
    gone = record(1, {50: 0.4, 100: None}, {50: 50.0, 100: 100.0})
    table = budget("tokens", a=[whole], b=[gone])
    assert (table.amount, table.unread, table.lost) == (100, (), ("run-1",))


def test_a_table_in_which_no_run_has_a_value_is_none() -> None:
    gone = record(1, {50: 0.4, 100: None}, {50: 50.0, 100: 100.0})
    for longer, there in (({150: 0.4}, False), ({50: 0.6, 150: 0.4}, True)):
        other = record(0, dict(longer), {step: float(step) for step in longer})
        table = equal_budget({"a": [other], "b": [gone]}, {}, "tokens")
        assert (table is not None) is there


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


@pytest.mark.parametrize(
    ("on_test", "on_validation", "last", "best", "said"),
    [
        ({"sft": 0.5, "kd": 0.6}, {"sft": 0.5, "kd": 0.4}, 400, False, True),
        ({"sft": 0.5, "kd": 0.6}, {"sft": 0.5, "kd": 0.6}, 400, False, False),  # they agree
        ({"sft": 0.5, "kd": 0.6}, {"sft": 0.5, "kd": 0.4}, 500, False, False),  # sft went on: no curve there
        ({"sft": 0.5, "kd": 0.6}, {"sft": 0.5, "kd": 0.4}, 400, True, False),  # scored: an earlier step's
    ],
)
def test_rows_that_call_another_best_are_told(
    on_test: dict[str, float],
    on_validation: dict[str, float],
    last: int,
    best: bool,
    said: bool,
    tmp_path: Path,
) -> None:
    for seed in (0, 1, 2):
        for method, nll in on_validation.items():
            until = last if method == "sft" else 400
            noise = seed / (1000 if method == "sft" else 500)
            curve = [line(step, 1.0, 100, nll + noise) for step in (100, until)]
            scores, changes = {"nll": on_test[method] + noise}, {"trainer.load_best_model_at_end": best}
            write_job(tmp_path, method, seed, scores, changes=changes, curve=curve)
    told = [note for note in compare([tmp_path]).notes if "on the validation rows" in note]
    assert len(told) == said
    if said:
        assert told[0].startswith("sft is best in nll on the test rows, kd on the validation rows: ")


@pytest.mark.parametrize(("most", "told"), [(64, "On 64 "), (8, "On 8 "), (None, "On the ")])
def test_how_many_rows_a_budget_is_read_on(tmp_path: Path, most: int | None, told: str) -> None:
    """So many of the split's (100) as the config lets be evaluated on the way."""
    changes = {} if most is None else {"eval.during_training_rows": most}
    for method in ("sft", "kd"):
        write_job(tmp_path, method, 0, {"nll": 0.5}, changes=changes)
    table = compare([tmp_path]).budgets["steps"]
    assert table.rows == most
    said = budget_line(table)
    assert said.startswith(f"{told}validation rows, at 400 steps")
    assert ("8 rows are few" in said) == (most == 8)


def test_a_group_that_was_evaluated_later_has_no_value(tmp_path: Path) -> None:
    write_job(tmp_path, "sft", 0, {"nll": 0.5}, curve=[line(100, 10, 100, 0.5)])
    write_job(tmp_path, "kd", 0, {"nll": 0.5}, curve=[line(100, 30, 100, 0.4)])
    assert [*compare([tmp_path]).budgets] == ["steps", "tokens"], "a table of one group compares nothing"
    write_job(tmp_path, "revkd", 0, {"nll": 0.5}, curve=[line(100, 10, 100, 0.6)])
    table = compare([tmp_path]).budgets["seconds"]
    assert table.amount == 10
    assert table.unread == ("kd",)
    assert table.columns[0].cells["kd"].estimate is None
    assert table.columns[0].best is None


@pytest.mark.parametrize("kind", ["tokens", "seconds"])
@pytest.mark.parametrize("apart", [0.0, 0.009, 0.02])
def test_short_runs_whose_seeds_differ_by_some_tokens_are_read(
    tmp_path: Path, kind: str, apart: float
) -> None:
    """One evaluation each, at its end: within a hundredth the runs have spent the same."""
    for method, nll in (("sft", 0.5), ("kd", 0.4)):
        for seed in (0, 1):
            more = 10_000 * (1 + apart * seed)
            curve = [line(50, more / 100, round(more), nll + seed / 100)]
            write_job(tmp_path, method, seed, {"nll": 0.5}, curve=curve)
    budgets = compare([tmp_path]).budgets
    assert (kind in budgets) is (apart < 0.01)
    if kind not in budgets:  # a seed of either group is read later: no mean, so nothing to compare
        return
    table = budgets[kind]
    assert table.amount == {"tokens": 10_000, "seconds": 100}[kind]
    (column,) = table.columns
    assert (table.unread, table.lost) == ((), ())
    for method, nll in (("sft", 0.5), ("kd", 0.4)):
        assert column.cells[method].by_seed == {0: nll, 1: nll + 0.01}
    assert "(within 1%)" in budget_line(table)


def test_a_curve_is_read_beside_its_ends_and_no_further() -> None:
    points = [(100.0, 0.5), (200.0, 0.3)]
    reads = [(98.0, None), (99.5, 0.5), (100.0, 0.5), (150.0, 0.4), (200.0, 0.3), (201.0, 0.3), (203.0, None)]
    for at, value in reads:
        assert read_at(points, at, 0.01) == (None if value is None else pytest.approx(value))


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


def test_what_is_hardly_unequal_is_told_by_how_much(tmp_path: Path) -> None:
    write_job(tmp_path, "sft", 0, {"nll": 0.5}, seconds=100)
    write_job(tmp_path, "kd", 0, {"nll": 0.4}, seconds=106)
    assert "(from sft 1 min 40 s to kd 1 min 46 s, 1.06 ×)" in held_line(compare([tmp_path]))


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("validation/nll_per_token", False),
        ("validation/kl_per_token", False),
        ("validation/top1_agreement", True),
        ("validation/learning_rate", None),
        ("validation/disagreement_with_accuracy_loss", None),  # no guess by a part of a name
        ("train/loss", False),
    ],
)
def test_directions_are_those_of_the_scalars_that_a_training_writes(name: str, better: bool | None) -> None:
    assert direction(name) is better


def test_a_run_that_diverged_takes_no_budget_from_the_others(tmp_path: Path) -> None:
    for method, seed in (("sft", 0), ("sft", 1), ("kd", 0)):
        write_job(tmp_path, method, seed, {"nll": 0.5})
    whole = compare([tmp_path]).budgets["steps"]
    curve = [
        {**each, "validation/nll_per_token": None}
        if "validation/nll_per_token" in each and each["step"] > 120
        else each
        for each in validation(1, 10.0)
    ]
    run = write_job(tmp_path, "kd", 1, {"nll": 0.5}, curve=curve)
    comparison = compare([tmp_path])
    table = comparison.budgets["steps"]
    assert table.amount == whole.amount == 400
    (column,) = table.columns
    assert column.cells["kd"].by_seed[1] is None
    assert column.cells["kd"].estimate is None
    assert column.cells["sft"] == whole.columns[0].cells["sft"]
    assert column.best is None
    assert (table.lost, table.unread, table.early) == ((run.name,), (), False)
    assert f"No finite number there (diverged): {run.name}." in budget_line(table)
    kd = next(group for group in comparison.groups if group.label == "kd")
    (piece,) = folded_curve(kd, "validation/nll_per_token", "steps")
    assert piece[-1][0] == 120


def test_no_line_leads_over_a_gap(tmp_path: Path) -> None:
    points = [(1.0, 0.5), (2.0, None), (3.0, 0.1)]
    assert [read_at(points, at) for at in (1.0, 1.5, 2.0, 2.5, 3.0)] == [0.5, None, None, None, 0.1]
    curve = [{**line(step, step, step, 0.5), "validation/nll_per_token": nll}
             for step, nll in ((1, 0.5), (2, 0.4), (3, None), (4, 1e200), (5, 0.3))]  # fmt: skip
    write_job(tmp_path, "kd", 0, {"nll": 0.5}, curve=curve)
    comparison = compare([tmp_path])
    pieces = folded_curve(comparison.groups[0], "validation/nll_per_token", "steps")
    assert [[point[0] for point in piece] for piece in pieces] == [[1, 2], [5]]
    assert curves(comparison, "validation/nll_per_token", "steps").count('class="line"') == 2
