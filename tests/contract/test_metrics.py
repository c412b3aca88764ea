"""What every metric must hold to, the user's own included (DISTIL_PLUGINS names where they are)."""

from __future__ import annotations

import pytest

from distil.data.embedded import generate_rows
from distil.metrics.base import METRICS, Generation, Metric, Observations, ScoreTotals

NAMES = sorted(METRICS.entries())
OURS = [name for name in NAMES if METRICS.get(name).factory.__module__.startswith("distil.metrics.")]
TOTALS = ScoreTotals(tokens=40, bytes=160, nll_sum=55.0, kl_sum=9.5, agreement_sum=31)
ROWS = generate_rows("test", 12, 0)
RESPONSES = [row["response"] for row in ROWS]
WRITTEN = {
    "as the reference": RESPONSES,
    "as another's": RESPONSES[1:] + RESPONSES[:1],
    "cut in half": [text[: len(text) // 2] for text in RESPONSES],
    "in one word": ["Yes."] * len(ROWS),
    "not at all": [""] * len(ROWS),
}
"""Answers to rows that bring all that data can: prompt, reference, slots."""


def metric(name: str) -> Metric:
    return METRICS.get(name).factory()


def observed(written: str) -> Observations:
    rows = enumerate(zip(ROWS, WRITTEN[written], strict=True))
    return Observations(
        TOTALS,
        [
            Generation(row["prompt"], row["response"], text, len(text.split()) + 1, i % 3 > 0, row["slots"])
            for i, (row, text) in rows
        ],
    )


@pytest.mark.parametrize("name", OURS)
def test_one_name(name: str) -> None:
    """File stem = registry name."""
    assert METRICS.get(name).factory.__module__.rpartition(".")[2] == name


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_described_and_no_other_metric_has_it(name: str) -> None:
    values = metric(name).values
    assert values
    others = {value for other in NAMES if other != name for value in metric(other).values}
    assert not others & set(values)
    for value in values.values():
        assert format(0.5, value.format)
        assert value.description.endswith(".")


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("name", NAMES)
def test_it_gives_what_it_names_within_its_unit(name: str, written: str) -> None:
    """The values that it announces, in that order; a share lies in [0, 1]."""
    values, scores = metric(name).values, metric(name).compute(observed(written))
    assert list(scores) == list(values)
    for key, score in scores.items():
        if score is not None and values[key].unit in ("share", "0 to 1"):
            assert 0 <= score <= 1 + 1e-12, key


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_rows_says_nothing(name: str) -> None:
    """An evaluation is of a set of rows; computed twice it is the same."""
    rows = observed("cut in half")
    backwards = Observations(rows.totals, rows.generations[::-1])
    scores = metric(name).compute(rows)
    assert metric(name).compute(backwards) == pytest.approx(scores)
    assert metric(name).compute(rows) == scores


@pytest.mark.parametrize("name", NAMES)
def test_nothing_observed_is_none_and_no_number(name: str) -> None:
    """No row, no token: there is nothing to compute a value from, and 0 would be one."""
    nothing = Observations(ScoreTotals(tokens=0, bytes=0, nll_sum=0.0))
    assert metric(name).compute(nothing) == dict.fromkeys(metric(name).values)
