from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from distil.report import words
from distil.report.run_directory import Metric, Results, read_run
from distil.system.units import duration
from tests.unit.report.made_up_run import write_run

LOWER = Metric("nll", higher_is_better=False)
HIGHER = Metric("share", higher_is_better=True, format=".1%")


def results(before: float | None, after: float | None) -> Results:
    names = ("nll", "share", "length", "signed")
    return Results((), None, dict.fromkeys(names, before), dict.fromkeys(names, after), {}, {}, {}, ())


@pytest.mark.parametrize(
    ("metric", "before", "after", "text", "verdict"),
    [
        (LOWER, 2.0, 1.5, "-0.500", "better"),
        (LOWER, 1.5, 2.0, "+0.500", "worse"),
        (HIGHER, 0.25, 0.5, "+25.0 pp", "better"),
        (HIGHER, 0.5, 0.25, "-25.0 pp", "worse"),
        (Metric("length"), 5.0, 7.0, "+2.000", ""),
        (LOWER, 1.00001, 1.0, "0.000", ""),
        (Metric("signed", format="+.1f"), 5.0, 7.0, "+2.0", ""),
        (Metric("signed", format=" .1f"), 7.0, 5.0, "-2.0", ""),
        (Metric("signed", format="+.1f"), 5.0, 5.0, "0.0", ""),
        (LOWER, None, 1.0, "–", ""),
        (LOWER, 1.0, None, "–", ""),
    ],
)
def test_change(metric: Metric, before: float | None, after: float | None, text: str, verdict: str) -> None:
    assert words.change(results(before, after), metric) == words.Change(text, verdict)


@pytest.mark.parametrize("name", [".1f", ".3f", ".1%"])
def test_a_collapsed_students_perplexity_fits_its_column(name: str) -> None:
    assert words.score(6.43e263, Metric("perplexity", format=name)) == "6.43e+263"
    assert words.score(-1e7, Metric("perplexity", format=name)) == "-1e+07"
    assert words.score(9_999_999.0, Metric("perplexity", format=".1f")) == "9999999.0"


def test_a_format_that_python_does_not_know_still_shows_the_number() -> None:
    assert words.score(1.5, Metric("mine", format="nonsense")) == "1.5"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (43, "43 s"),
        (59.7, "1 min 00 s"),
        (95.4, "1 min 35 s"),
        (7265, "2 h 01 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_and_times() -> None:
    assert [words.parameters(n) for n in (12, 820_352, 999_999, 1.54e9)] == ["12", "820 k", "1 M", "1.54 B"]
    assert words.moment("2026-11-24T10:02:11+00:00") == "2026-11-24 10:02 UTC"
    assert words.moment("yesterday") == "yesterday"


def test_cost_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    assert words.cost_facts({}) == []
    assert words.cost_sentence({}) == ""
    assert words.cost_sentence({"steps": 1, "scored_tokens": 1}) == "1 step; 1 scored token"
    assert (
        words.cost_sentence({"steps": 3, "seconds": {"train": None}, "peak_memory_bytes": None}) == "3 steps"
    )
    cost = read_run(write_run(tmp_path)).cost
    assert cost is not None
    assert words.cost_sentence(cost) == (
        "1 min 35 s (training 43 s, loading 3.1 s, evaluation 32 s); 600 steps; 0.0717 s a step;"
        " 519,204 scored tokens; 12,075 a second; 812 MB of memory at the peak;"
        " parameters: teacher 820 k, student 127 k, trainable 127 k"
    )


def test_dropped_rows_are_a_note(tmp_path: Path) -> None:
    full = read_run(write_run(tmp_path)).results
    assert full is not None
    of = f"12 of {12 + sum(full.data[f'{split}_rows'] for split in ('train', 'validation', 'test')):,} rows"
    assert words.notes(full)[-1] == (
        f"{of} that were read were left out: 3 without a scored token, 9 too long."
    )
    assert words.notes(replace(full, notes=(), data={"dropped": {"too long": 0}})) == []
    one = words.notes(replace(full, notes=(), data={"dropped": {"too long": 1}}))
    assert one == ["1 row of the data was left out: too long."]
    alone = words.evaluated_on(replace(full, evaluation={"rows": 1, "split": "test"}))
    assert alone.startswith("Evaluated on the one row of the test split. 1 row is few: ")


def test_how_answers_were_made(tmp_path: Path) -> None:
    full = read_run(write_run(tmp_path)).results
    assert full is not None
    assert "64 of them answered, greedy, at most 128 new tokens" in words.evaluated_on(full)
    sampled = replace(full, evaluation={**full.evaluation, "do_sample": True, "sampling_temperature": 0.7})
    assert "sampled at temperature 0.7, top_k 0, top_p 1.0" in words.evaluated_on(sampled)
    assert words.evaluated_on(replace(full, evaluation={})) == ""


@pytest.mark.parametrize("rows", [1, 8, 24, 25, 400])
def test_few_rows_are_those_over_which_a_share_is_hardly_known(rows: int) -> None:
    """The normal interval of a share of one half, the widest there is: from ± 0.2 on it is said."""
    half = (rows * 0.25) ** 0.5 / rows * stats.norm.ppf(0.975)
    assert words.half_of_share(rows) == pytest.approx(half, rel=1e-4)
    said = words.few_rows({"rows": rows, "generation_rows": rows})
    assert bool(said) == (half >= 0.2)
    if said:
        assert f"a share may come out {half:.2f} higher or lower (95 %)" in said


@pytest.mark.parametrize(
    ("rows", "answers", "which"),
    [
        (8, 8, "8 rows are few: "),
        (20, 8, "20 rows and 8 answers are few: "),
        (500, 4, "4 answers are few: "),
        (1, 0, "1 row is few: "),
        (500, 64, ""),
        (500, 0, ""),
        (None, None, ""),
    ],
)
def test_answers_are_counted_beside_rows(rows: int | None, answers: int | None, which: str) -> None:
    said = words.few_rows({"rows": rows, "generation_rows": answers})
    assert said.startswith(which)
    assert bool(said) == bool(which)


def test_scores_of_another_run_are_said_to_be_that() -> None:
    assert words.taken_over({}) == words.taken_over({"scores_taken_over": None}) == ""
    both = {"teacher": "kd-s0", "student_before": "kd-s0"}
    told = "Scores taken over: those of the teacher and the untouched student are from kd-s0."
    assert words.taken_over({"scores_taken_over": both}) == told
    apart = words.taken_over({"scores_taken_over": both | {"teacher": "sft-s0"}})
    assert "those of the teacher are from sft-s0; those of the untouched student are from kd-s0" in apart


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\n\nAn answer.\n", "⏎⏎An answer.\n"), ("\n", "⏎"), (" a", " a"), ("a\nb", "a\nb"), ("", "")],
)
def test_an_answer_that_begins_with_line_breaks_does_not_look_empty(text: str, shown: str) -> None:
    assert words.with_breaks(text) == shown


@pytest.mark.parametrize("rows", [0, -3])
def test_a_number_of_rows_that_is_none_says_nothing(rows: int) -> None:
    assert words.few_rows({"rows": rows, "generation_rows": rows}) == ""
