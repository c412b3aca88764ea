"""A cache that cannot say what a method asks is refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from distil.adapters.lora import LoraConfig
from distil.adapters.none import NoneConfig
from distil.config.schema import ExperimentConfig, MethodConfig, ModelConfig, StudentConfig, TeacherConfig
from distil.config.trainer import TrainerConfig
from distil.config.validate import validate
from distil.data.jsonl import JsonlConfig
from distil.methods.base import METHODS, method_of
from distil.preflight import ignored_keys
from distil.teacher_cache.formats.base import FORMATS, format_of
from distil.types import REFERENCE, InputError


def config(method: str, cache: str, method_keys: dict[str, Any], **keys: Any) -> ExperimentConfig:
    of_method, of_cache = METHODS.get(method).config, FORMATS.get(cache).config
    assert of_method is not None
    assert of_cache is not None
    made: MethodConfig = of_method(**method_keys)
    return ExperimentConfig(
        method=made,
        model=ModelConfig("m", TeacherConfig(path="t")),
        peft=NoneConfig(),
        data=JsonlConfig(),
        teacher_cache=of_cache(**keys),
    )


@pytest.mark.parametrize(
    ("method", "cache", "method_keys", "keys", "way_out"),
    [
        ("revkd", "sampled", {}, {}, "teacher_cache=topk"),
        ("gkd", "sampled", {}, {}, "jsd is another divergence"),
        ("kd", "sampled", {"temperature": 1.0}, {}, r"teacher_cache\.temperature=1"),
        ("kd", "topk", {"temperature": 4.0}, {}, r"teacher_cache\.temperatures=\[1,2,4\]"),
        ("gkd", "topk", {}, {"temperatures": [2.0]}, r"teacher_cache\.temperatures=\[1,2\]"),
    ],
)
def test_refused_by_name_with_the_way_out(
    method: str, cache: str, method_keys: dict[str, Any], keys: dict[str, Any], way_out: str
) -> None:
    with pytest.raises(InputError, match=f"teacher_cache={cache} with method={method}: .*{way_out}"):
        validate(config(method, cache, method_keys, **keys))


@pytest.mark.parametrize("by", ["kl_per_token", "eval_top1_agreement"])
@pytest.mark.parametrize(
    ("method", "cache", "teacher", "evaluated", "missing"),
    [
        ("kd", "none", "t", False, None),  # training has it beside the student
        ("gkd", "topk", "t", False, None),
        ("kd", "topk", "self", False, None),
        ("kd", "topk", "t", True, None),
        ("kd", "topk", "t", False, r"eval\.teacher=false"),
        ("sft", "none", "t", True, None),
        ("sft", "none", "t", False, r"eval\.teacher=false"),
        ("sft", "none", None, True, r"model\.teacher\.path=null"),
    ],
)
def test_no_best_student_by_what_nobody_measures(
    method: str, cache: str, teacher: str | None, evaluated: bool, missing: str | None, by: str
) -> None:
    asked = config(method, cache, {})
    asked.model = ModelConfig("m", TeacherConfig(path=teacher), StudentConfig(path="s"))
    asked.peft = LoraConfig()
    asked.eval.teacher = evaluated
    asked.trainer = TrainerConfig(metric_for_best_model=by)
    if missing is None:
        validate(asked)
    else:
        with pytest.raises(InputError, match=rf"metric_for_best_model={by} with {missing}: .*=nll_per_token"):
            validate(asked)


@pytest.mark.parametrize(
    ("method", "cache", "method_keys"),
    [
        *[(method, "hidden", {"temperature": 7.0}) for method in ("kd", "revkd", "gkd")],
        *[(method, "topk", {}) for method in ("kd", "revkd", "gkd", "sft")],
        ("kd", "sampled", {}),
        ("sft", "sampled", {}),  # it asks nobody
        ("kd", "sampled", {"kd_loss_weight": 0.0, "temperature": 5.0}),
        ("gkd", "sampled", {"lambda_gkd": 0.0}),  # what is asked is about the student's own text
    ],
)
def test_what_it_can_say_is_taken(method: str, cache: str, method_keys: dict[str, Any]) -> None:
    made = config(method, cache, method_keys)
    validate(made)
    asked = method_of(made.method).questions(REFERENCE)
    assert bool(asked) is (method != "sft" and 0.0 not in method_keys.values())
    assert all(format_of(made.teacher_cache).refusal(term) is None for term in asked)


@pytest.mark.parametrize(
    ("method", "method_keys", "ignored"),
    [("kd", {}, False), ("gkd", {}, False), ("gkd", {"lambda_gkd": 0.0}, True), ("sft", {}, True)],
)
def test_a_cache_that_training_does_not_read_is_no_part_of_the_run(
    method: str, method_keys: dict[str, Any], ignored: bool
) -> None:
    made = config(method, "hidden", method_keys)
    known = ignored_keys(made, method_of(made.method))
    assert ("teacher_cache" in known) is ignored
