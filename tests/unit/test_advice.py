"""Each odd thing is said, and nothing is said of a usual run."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distil.adapters.base import ADAPTERS, adapter_of
from distil.adapters.none import NoneConfig
from distil.advice import advice, ruined, setback, trend, weak_teacher
from distil.config.schema import ExperimentConfig, ModelConfig, StudentConfig, TeacherConfig
from distil.engine.evaluation import score_rows
from tests.conftest import build_llama
from tests.training import build_method


def said(method: str, steps: int = 100, warmup: int = 10, init: str = "pretrained", **keys: float) -> str:
    model = ModelConfig(name="any", student=StudentConfig(init=init))
    config = ExperimentConfig(method=build_method(method).config, model=model, peft=NoneConfig())
    return " ".join(advice(config, build_method(method, **keys).terms(0), steps, warmup))


@pytest.mark.parametrize("method", ["kd", "revkd", "gkd", "sft"])
def test_a_usual_run_is_left_in_peace(method: str) -> None:
    assert said(method) == ""


def test_warm_up_longer_than_the_run() -> None:
    """500 warm-up steps are the default; a small data set has fewer steps than that (trap 52)."""
    assert "trainer.warmup_steps=500" in said("kd", steps=300, warmup=500)
    assert "Try trainer.warmup_steps=30" in said("kd", steps=300, warmup=500)
    assert "trainer.warmup_steps=200 is most of the run's 300 steps" in said("kd", steps=300, warmup=200)
    assert "warmup_steps" not in said("kd", steps=300, warmup=150)


def test_random_student_under_mode_seeking_objectives() -> None:
    """Alone they collapse (trap 61); with some cross-entropy, or under forward KL, they do not."""
    assert "collapses" in said("gkd", init="random")
    assert "collapses" in said("revkd", init="random", kd_loss_weight=1.0)
    assert said("revkd", init="random", kd_loss_weight=0.5) == ""
    assert said("kd", init="random", kd_loss_weight=1.0) == ""


@pytest.mark.parametrize(
    ("student", "whole"),
    [
        ({}, True),
        ({"path": "A"}, True),
        ({"path": "B"}, False),
        ({"path": "A", "revision": "old"}, False),
        ({"keep_layers": 3}, False),
        ({"init": "random"}, False),
    ],
)
def test_a_student_that_is_its_whole_teacher(student: dict[str, Any], whole: bool) -> None:
    """Trained on its own say it cannot get better, and nothing gets smaller."""
    model = ModelConfig(name="any", teacher=TeacherConfig(path="A"), student=StudentConfig(**student))
    for method, told in (("kd", whole), ("sft", False)):
        config = ExperimentConfig(method=build_method(method).config, model=model, peft=NoneConfig())
        lines = " ".join(advice(config, build_method(method).terms(0), 100, 10))
        assert ("whole teacher" in lines) is told


def test_odd_temperature() -> None:
    assert "method.temperature=0.5" in said("kd", temperature=0.5)
    assert said("kd", temperature=0.5, kd_loss_weight=0.0) == "", "a divergence that weighs nothing"


@pytest.mark.parametrize(
    ("peft", "rate", "odd"),
    [
        ("none", 3e-3, False),
        ("none", 3e-1, True),
        ("lora", 2e-4, False),
        ("lora", 1e-6, True),
        ("qlora", 2e-4, False),
        ("ia3", 5e-5, True),
        ("prompt", 5e-5, True),
        ("prefix", 1e-2, False),
    ],
)
def test_a_rate_that_is_another_adapters(peft: str, rate: float, odd: bool) -> None:
    """A prompt learns nothing at the rate of full fine-tuning, which diverges at that of a prompt."""
    told = adapter_of(ADAPTERS.get(peft).config()).odd_rate(rate)
    assert (told is not None) is odd
    assert told is None or told.startswith(f"trainer.learning_rate={rate:g} is unusual with peft={peft}")


def logged(losses: list[float], validation: list[float]) -> list[dict[str, float]]:
    """What a trainer logs: a loss every second step, an evaluation every third."""
    found = [{"loss": loss, "learning_rate": 1.0, "step": 2 * i + 2} for i, loss in enumerate(losses)]
    found += [{"eval_nll_per_token": nll, "step": 3 * i + 3} for i, nll in enumerate(validation)]
    return sorted(found, key=lambda entry: entry["step"])


RISING = [0.5, 0.6, 0.8, 1.5, 4.0]
ROSE = logged(RISING, [])
FELL = [5.0, 4.0, 3.5, 3.2, 3.0, 2.9, 2.8, 2.7]
FLAT = [0.5, 0.4, 0.6, 0.5, 0.4, 0.6, 0.5, 0.45]


@pytest.mark.parametrize(
    ("losses", "validation", "wanted"),
    [
        (RISING, [], "Its loss rose in training: a lower trainer.learning_rate (it was 0.5) may help."),
        (RISING, [0.9, 1.4], "Its loss rose in training: a lower trainer.learning_rate"),
        (FELL, [], "Its loss was still falling at the end: more steps (trainer.max_steps or"),
        ([], [0.9, 0.7], "Its validation nll was still falling at the end: more steps"),
        (FLAT, [0.9, 0.8, 0.7], "Its validation nll was still falling at the end: more steps"),
        (FELL, [0.9, 0.4, 0.8], "Its validation nll was lowest at step 6 (0.4; 0.8 at the end): fewer steps"),
        (FELL, [0.4, 0.8], "Its validation nll was lowest at step 3"),
        (FELL, [0.6, 0.8], "Its validation nll was at best 0.6 (step 3), no better than the untouched"),
        (FLAT, [2.5, 2.9], "Its validation nll was at best 2.5 (step 3), no better than the untouched"),
        (FLAT, [], ""),
        (FLAT, [0.7, 0.7], ""),
        ([0.5], [0.7], ""),
        ([0.9, 0.5], [], ""),
        ([math.nan, math.inf, *FELL], [math.nan], "Its loss was still falling"),
        ([], [], ""),
    ],
)
def test_the_way_out_of_a_setback_is_what_the_curves_speak_for(
    losses: list[float], validation: list[float], wanted: str
) -> None:
    terms = build_method("sft").terms(0)
    line = setback({"nll": 0.5}, {"nll": 0.7}, terms, 0.5, logged(losses, validation), [])
    told = (
        "The distilled student is worse than the untouched one on the test rows: nll 0.5 before, 0.7 after."
    )
    assert line is not None
    assert line.startswith(f"{told} {wanted}".rstrip())
    ways = [word for word in ("learning_rate", "more steps", "fewer steps") if word in line]
    assert len(ways) == bool(wanted)


def test_a_rate_that_was_advised_on_is_not_advised_on_again() -> None:
    said = ["Step 10: the loss is 9. A lower trainer.learning_rate, more trainer.warmup_steps … may help."]
    terms = build_method("sft").terms(0)
    for after, history in ((0.7, ROSE), (None, ROSE), (0.7, logged(FLAT, [0.6, 0.8]))):
        line = setback({"nll": 0.5}, {"nll": after}, terms, 0.5, history, said)
        assert line is not None
        assert "may help" not in line
        assert "learning_rate" in (setback({"nll": 0.5}, {"nll": after}, terms, 0.5, history, []) or "")


@given(st.lists(st.floats(-10, 10), max_size=30))
def test_a_trend_turns_with_its_curve(values: list[float]) -> None:
    assert trend(values[::-1]) == -trend(values) == trend([-value for value in values])
    assert trend(sorted(values)) >= 0


def test_a_trend_is_that_of_kendall() -> None:
    """One curve of twenty without a trend has one in each direction; one that falls slowly has it."""
    chance = random.Random(0)
    found = [trend([chance.gauss(0, 1) for _ in range(20)]) for _ in range(2000)]
    for sign in (1, -1):
        assert abs(found.count(sign) / 2000 - 0.05) < 5 * (0.05 * 0.95 / 2000) ** 0.5
    assert trend([1 - step / 1000 + chance.gauss(0, 0.1) for step in range(1000)]) == -1
    for values in ([], [1.0], [2.0, 1.0], [3.0, 2.0, 1.0]):
        assert trend(values) == 0, "too few to tell"
    assert trend([4.0, 3.0, 2.0, 1.0]) == -1


@pytest.mark.parametrize("length", [25, 50, 400])
def test_a_curve_whose_neighbours_are_alike_has_no_trend_for_that(length: int) -> None:
    """Autocorrelation 0.5: taken as independent values, 16 in 100 would have one in each direction."""
    chance = random.Random(length)
    found = []
    for _ in range(2000):
        curve = [chance.gauss(0, 1 / 0.75**0.5)]
        while len(curve) < length:
            curve.append(0.5 * curve[-1] + chance.gauss(0, 1))
        found.append(trend(curve))
    for sign in (1, -1):
        assert 0.02 < found.count(sign) / 2000 < 0.085


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ({"nll": 1.0}, {"nll": 1.1}, True),
        ({"nll": 1.0}, {"nll": None}, True),
        ({"nll": 1.0}, {"nll": 1.0}, False),
        ({"nll": 1.0, "kl_to_teacher": 0.5}, {"nll": 30.0, "kl_to_teacher": 29.0}, True),
        ({"nll": 1.0, "kl_to_teacher": 0.5}, {"nll": 1.1, "kl_to_teacher": 0.4}, False),
        ({"nll": 1.0, "kl_to_teacher": None}, {"nll": 1.1, "kl_to_teacher": None}, True),
        ({"rougeL": 0.5}, {"rougeL": 0.1}, False),
        ({"nll": None}, {"nll": None}, False),
    ],
)
def test_a_student_that_got_worse_is_said(
    before: dict[str, float | None], after: dict[str, float | None], worse: bool
) -> None:
    """By all that it can have learnt; a method that only follows its teacher may cost some likelihood."""
    line = setback(before, after, build_method("sft").terms(0), 50.0, ROSE, [])
    assert (line is not None) is worse
    if line is not None:
        assert "(it was 50)" in line
        for name in ("nll", "kl_to_teacher"):
            assert (name in line) is (before.get(name) is not None)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (0.4, math.log(1024), True),
        (math.log(1024) + 1, math.log(1024) * (1 + 1e-7), True),  # better by nll than what it was
        (0.4, math.log(1024) + 0.01, False),  # bad, and not that
        (math.log(1024), math.log(1024), False),  # an untouched head of zeros, which did not learn
        (None, math.log(1024), True),
        (0.4, None, False),
    ],
)
def test_a_student_that_says_nothing_is_ruined(before: float | None, after: float | None, told: bool) -> None:
    line = ruined({"nll": before}, {"nll": after}, 1024, 1e30)
    assert (line is not None) is told
    if line is not None:
        assert "each of its 1,024 tokens the same probability" in line
        assert "(it was 1e+30)" in line


@pytest.mark.parametrize(
    ("embeddings", "resized"),
    [
        (512, None),  # padded: more rows than the tokenizer has tokens
        (512, 260),  # cut to the tokenizer's: logits and config follow
        (260, 512),
    ],
)
def test_ruined_counts_what_the_model_gives_probabilities(embeddings: int, resized: int | None) -> None:
    """The number in its config, whatever the tokenizer's (here of 260 tokens), is that of its logits."""
    model = build_llama(embeddings)
    if resized is not None:
        model.resize_token_embeddings(resized)
    rows = [{"input_ids": [*range(250, 260)], "labels": [*range(250, 260)]}]
    outputs = int(model.config.get_text_config().vocab_size)
    before = score_rows(model, None, rows, 0, 1, 260).nll_per_token
    torch.nn.init.zeros_(model.model.norm.weight)  # what a step to weights of 1e30 comes to
    after = score_rows(model, None, rows, 0, 1, 260).nll_per_token
    assert f"each of its {resized or embeddings} tokens" in str(
        ruined({"nll": before}, {"nll": after}, outputs, 1e30)
    )
    assert ruined({"nll": before}, {"nll": before}, outputs, 1e30) is None


@pytest.mark.parametrize(
    ("method", "teacher", "student", "told"),
    [
        ("kd", 3.0, 2.0, True),
        ("gkd", 3.0, 2.0, True),
        ("kd", 2.0, 3.0, False),
        ("kd", 2.0, 2.0, False),  # its own base
        ("kd", 2.03, 2.0, False),  # as those of two models may that know nothing
        ("kd", 2.05, 2.0, True),
        ("kd", None, 2.0, False),
        ("sft", 3.0, 2.0, False),  # asks no teacher
    ],
)
def test_a_teacher_that_knows_less_is_said(
    method: str, teacher: float | None, student: float, told: bool
) -> None:
    line = weak_teacher({"nll": teacher}, {"nll": student}, build_method(method).terms(0))
    assert (line is not None) is told
    if line is not None:
        assert f"nll {teacher:g}, the student 2." in line


def test_what_is_worse_is_seen_in_what_is_shown() -> None:
    terms = build_method("sft").terms(0)
    assert setback({"nll": 2.34567}, {"nll": 2.34568}, terms, 1e-4, [], []) is None
    assert "nll 2.346 before, 2.349 after" in (
        setback({"nll": 2.3457}, {"nll": 2.3485}, terms, 1e-4, [], []) or ""
    )


@pytest.mark.parametrize(
    ("method", "kd_loss_weight", "told"),
    [("sft", None, True), ("kd", 0.5, True), ("revkd", 0.5, True), ("revkd", 1.0, False), ("kd", 1.0, False)],
)
def test_likelihood_alone_says_nothing_of_who_only_follows(
    method: str, kd_loss_weight: float | None, told: bool
) -> None:
    """Who was never taught the rows' own tokens may pay with them; a score that is no number is a setback."""
    weights = {} if kd_loss_weight is None else {"kd_loss_weight": kd_loss_weight}
    terms = build_method(method, **weights).terms(0)
    assert (setback({"nll": 1.0}, {"nll": 1.5}, terms, 1e-4, [], []) is not None) is told
    assert setback({"nll": 1.0}, {"nll": None}, terms, 1e-4, [], []) is not None
    both = setback(
        {"nll": 1.0, "kl_to_teacher": 0.5}, {"nll": 1.5, "kl_to_teacher": 0.9}, terms, 1e-4, [], []
    )
    assert both is not None
