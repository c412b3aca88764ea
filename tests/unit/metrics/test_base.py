"""Registry, plan and table of metrics."""

import math
import subprocess
import sys
from typing import ClassVar

import pytest

from distil.metrics.base import (
    Generation,
    Metric,
    Need,
    Observations,
    ScoreTotals,
    Value,
    compute_metrics,
    describe,
    plan_metrics,
)
from distil.types import InputError

EVERYTHING = frozenset(Need)
TOTALS = ScoreTotals(tokens=4, bytes=8, nll_sum=8 * math.log(2), kl_sum=2.0, agreement_sum=3)


def answer(text: str, reference: str = "a b c", tokens: int = 3, ended: bool = True) -> Generation:
    return Generation("prompt", reference, text, tokens, ended)


def test_the_default_metrics_exist() -> None:
    from distil.config.schema import EvalConfig

    metrics, notes = plan_metrics(EvalConfig().metrics, EVERYTHING)
    assert not notes
    assert list(describe(metrics))[:3] == ["nll", "perplexity", "bits_per_byte"]
    assert describe(metrics)["nll"].keys() == {"unit", "higher_is_better", "format", "description"}


def test_what_settings_turned_off_leaves_a_note() -> None:
    metrics, notes = plan_metrics(["likelihood", "agreement", "length"], {Need.SLOTS})
    assert [type(metric).__name__ for metric in metrics] == ["Likelihood"]
    assert notes == [
        "agreement is left out: this evaluation has no teacher.",
        "length is left out: this evaluation has no generations.",
    ]


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"eval\.metrics=rogue is unknown\. Did you mean rouge\?"):
        plan_metrics(["rogue"], EVERYTHING)


def test_a_name_given_twice_counts_once() -> None:
    assert len(plan_metrics(["length", "length"], EVERYTHING)[0]) == 1


def test_sums_are_divided_once() -> None:
    assert TOTALS.nll_per_token == pytest.approx(2 * math.log(2))
    assert TOTALS.perplexity == pytest.approx(4.0)
    assert TOTALS.bits_per_byte == pytest.approx(1.0)
    assert TOTALS.kl_per_token == 0.5
    assert TOTALS.top1_agreement == 0.75


def test_what_is_not_finite_becomes_none_with_a_note() -> None:
    metrics, _ = plan_metrics(["likelihood"], EVERYTHING)
    scores, notes = compute_metrics(metrics, Observations(ScoreTotals(1, 1, 1e6)))
    assert scores["perplexity"] is None
    assert scores["nll"] == 1e6
    assert notes == ["perplexity is inf."]


def test_a_metric_whose_names_are_not_those_it_says_is_noted() -> None:
    class Length(Metric):
        values: ClassVar = {"words": Value("words", None, ".1f", "How many words an answer has.")}

        def compute(self, observed: Observations) -> dict[str, float | None]:
            return {"wrods": 3.0}

    _, notes = compute_metrics([Length()], Observations(TOTALS))
    assert notes == ["Length computes wrods, and its values are words: words, wrods cannot be shown."]


def test_length_and_repetition() -> None:
    metrics, _ = plan_metrics(["length", "repetition"], EVERYTHING)
    observed = Observations(
        TOTALS, [answer("a b c d a b c d", tokens=9), answer("one two", tokens=3, ended=False)]
    )
    scores, _ = compute_metrics(metrics, observed)
    # a b c d a b c d: the 4-grams are abcd bcda cdab dabc abcd, one of five repeated; "one two" has none.
    assert scores == {"response_tokens": 6.0, "ended": 0.5, "repeated_4grams": pytest.approx(0.1)}


def test_rows_without_reference_are_not_evaluated_by_it() -> None:
    metrics, _ = plan_metrics(["rouge", "bleu"], EVERYTHING)
    scores, _ = compute_metrics(metrics, Observations(TOTALS, [answer("text", reference="")]))
    assert set(scores.values()) == {None}


def test_names_need_no_heavy_import() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'datasets', 'evaluate', 'numpy', 'sacrebleu'):\n"
        "    sys.modules[name] = None\n"
        "from distil.metrics.base import METRICS\n"
        "assert {'likelihood', 'agreement', 'rouge', 'bleu', 'length'} <= METRICS.entries().keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_needs_slots_is_refused_without_them() -> None:
    with pytest.raises(InputError, match=r"eval\.metrics=faithfulness .*`slots`.* Leave faithfulness out"):
        plan_metrics(["faithfulness"], EVERYTHING - {Need.SLOTS})


def test_faithfulness_is_a_mean_over_the_answers_with_slots() -> None:
    slots = {
        "required": [["Mia"]],
        "forbidden": ["Tom"],
        "items": [],
        "count": 0,
        "sentences": ["* is here."],
    }
    answers = [
        Generation("p", "r", "Mia is here.", 4, True, slots),
        Generation("p", "r", "Tom is here.", 4, True, slots),
        Generation("p", "r", "whatever", 4, True, None),
    ]
    metrics, _ = plan_metrics(["faithfulness"], EVERYTHING)
    scores, _ = compute_metrics(metrics, Observations(TOTALS, answers))
    assert scores == {"faithfulness": 0.5, "fluency": 1.0}
