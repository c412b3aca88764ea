"""What differs between runs, and what each difference is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distil.report.comparison.compare import Comparison, compare
from distil.report.comparison.keys import given, shown
from distil.types import InputError
from tests.unit.report.made_up_sweep import write_job


def grid(
    folder: Path, jobs: list[tuple[str, dict[str, Any]]], seeds: tuple[int, ...] = (0, 1), **kwargs: Any
) -> None:
    """A run for each (method, changes) and seed."""
    for method, changes in jobs:
        for seed in seeds:
            write_job(folder, method, seed, {"nll": 0.5 + seed / 100}, changes=changes, **kwargs)


def kinds(comparison: Comparison) -> dict[str, str]:
    return {each.key: each.kind for each in comparison.differences}


def labels(comparison: Comparison) -> list[str]:
    return [group.label for group in comparison.groups]


def test_a_methods_own_defaults_are_no_confound(tmp_path: Path) -> None:
    grid(tmp_path, [("sft", {}), ("kd", {}), ("gkd", {})])
    comparison = compare([tmp_path])
    assert labels(comparison) == ["sft", "gkd", "kd"]
    assert kinds(comparison) == {
        "method.name": "swept", "method.temperature": "own", "method.lambda_gkd": "own",
    }  # fmt: skip
    assert not comparison.confounds


def test_a_shared_key_set_by_hand_for_one_method_is_a_confound(tmp_path: Path) -> None:
    grid(tmp_path, [("sft", {}), ("kd", {})])
    grid(tmp_path, [("revkd", {"method.temperature": 1.0})], by_hand="method.temperature=1")
    (confound,) = compare([tmp_path]).confounds
    assert confound.key == "method.temperature"
    assert confound.text == "method.temperature: 2 (kd, sft); 1 (revkd)"


def test_a_key_of_one_method_alone_may_be_set_by_hand(tmp_path: Path) -> None:
    grid(tmp_path, [("sft", {})])
    grid(tmp_path, [("gkd", {"method.lambda_gkd": 0.1})], by_hand="method.lambda_gkd=.1")
    assert not compare([tmp_path]).confounds


def test_a_key_that_varies_within_a_method_is_swept(tmp_path: Path) -> None:
    grid(tmp_path, [("sft", {}), ("gkd", {"method.lambda_gkd": 0.0}), ("gkd", {"method.lambda_gkd": 1.0})])
    comparison = compare([tmp_path])
    assert labels(comparison) == ["sft", "gkd lambda_gkd=0", "gkd lambda_gkd=1"]
    assert comparison.baselines["gkd lambda_gkd=1"] == "sft"


def test_a_grid_has_no_confound(tmp_path: Path) -> None:
    rates = [{"trainer.learning_rate": rate} for rate in (1e-3, 3e-3)]
    grid(tmp_path, [(method, rate) for method in ("sft", "kd") for rate in rates])
    comparison = compare([tmp_path])
    assert labels(comparison) == [f"{m} learning_rate={r}" for m in ("sft", "kd") for r in (0.001, 0.003)]
    assert not comparison.confounds
    assert comparison.baselines["kd learning_rate=0.003"] == "sft learning_rate=0.003"


def test_what_follows_the_method_is_a_confound(tmp_path: Path) -> None:
    grid(tmp_path, [("sft", {"trainer.max_steps": 800}), ("kd", {"trainer.max_steps": 400})])
    comparison = compare([tmp_path])
    assert labels(comparison) == ["sft", "kd"]
    assert [each.key for each in comparison.confounds] == ["trainer.max_steps"]


def test_two_keys_that_move_together_confound_each_other(tmp_path: Path) -> None:
    jobs = [
        ("kd", {"method.temperature": t, "trainer.warmup_steps": w})
        for t, w in ((1.0, 10), (2.0, 20), (4.0, 30))
    ]
    grid(tmp_path, jobs)
    comparison = compare([tmp_path])
    assert labels(comparison) == ["temperature=1", "temperature=2", "temperature=4"]
    assert [each.key for each in comparison.confounds] == ["trainer.warmup_steps"]


def read_from(name: str, **sets: Any) -> dict[str, Any]:
    """What the environment of a run says that read ``name`` with these keys of the trainer."""
    told = {f"trainer.{key}": value for key, value in sets.items()}
    return {"tuned": [{"file": f"{name}.yaml", "digest": "00ff", "sets": told}]}


def test_a_tuned_learning_rate_is_declared_by_the_file_that_set_it(tmp_path: Path) -> None:
    """sft's rate comes from a file, by hand, from a preset, or nobody knows; kd's 0.003 from a file of its
    own, or is the pair's, which nothing tuned for kd."""
    tuned = ("sft", {"trainer.learning_rate": 1e-3})
    evidence = read_from("tuned/embedded_sft", learning_rate=1e-3)
    ways: dict[str, dict[str, Any]] = {
        "file": {"environment": evidence},
        "hand": {"environment": evidence, "by_hand": "trainer.learning_rate=1e-3"},
        "other": {"environment": read_from("tuned/embedded_sft", learning_rate=2e-3)},
        "elsewhere": {"environment": read_from("tuned/embedded_sft", weight_decay=0.1)},
        "none": {"environment": {"tuned": []}},
        "old": {},
        "pair's": {"environment": evidence},
        "nobody's": {"environment": evidence},
    }
    others: dict[str, dict[str, Any]] = {
        "old": {},
        "pair's": read_from("recipe/embedded", learning_rate=3e-3),
        "nobody's": {"tuned": []},
    }
    for way, kwargs in ways.items():
        grid(tmp_path / way, [tuned], **kwargs)
        other = others.get(way, read_from("tuned/embedded_kd", learning_rate=3e-3))
        grid(tmp_path / way, [("kd", {})], environment=other)
        comparison = compare([tmp_path / way])
        declared = kinds(comparison)["trainer.learning_rate"] == "declared"
        assert declared == (way == "file"), way
        assert [each.key for each in comparison.confounds] == ([] if declared else ["trainer.learning_rate"])
        said = compare([tmp_path / way], declared=["trainer.learning_rate"])
        assert kinds(said)["trainer.learning_rate"] == "declared"


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("trainer.learning_rat", "trainer.learning_rate"),
        ("learning_rate", "trainer.learning_rate"),
        ("trainer.max_step", "trainer.max_steps"),
        ("zzz", "config.yaml"),
        ("trainer", "config.yaml"),
    ],
)
def test_a_declared_key_that_no_run_has_is_refused(tmp_path: Path, key: str, near: str) -> None:
    grid(tmp_path, [("kd", {}), ("sft", {"trainer.learning_rate": 1e-3})])
    with pytest.raises(InputError, match=f"declared={key}: no run has such a key.*{near}"):
        compare([tmp_path], declared=["trainer.learning_rate", key])


def test_of_several_rates_each_wants_a_file(tmp_path: Path) -> None:
    grid(tmp_path, [("kd", {})])
    evidence = read_from("tuned/embedded_sft", learning_rate=1e-3)
    grid(tmp_path, [("sft", {"trainer.learning_rate": 1e-3})], environment=evidence)
    grid(tmp_path, [("gkd", {"trainer.learning_rate": 1e-2})])
    assert [each.key for each in compare([tmp_path]).confounds] == ["trainer.learning_rate"]


@pytest.mark.parametrize("key", ["learning_rate", "warmup_steps", "weight_decay", "lr_scheduler_type"])
def test_what_a_file_tunes_for_each_adapter_is_declared(tmp_path: Path, key: str) -> None:
    """Whether methods are swept beside it or not; and a budget is never declared."""
    for folder, methods in (("one", ("kd",)), ("mixed", ("kd", "sft"))):
        for peft, value in (("none", 1), ("lora", 2), ("ia3", 3.0)):
            changes = {"peft.name": peft, f"trainer.{key}": value}
            file = "recipe/embedded" if peft == "none" else f"tuned_adapter/embedded_{peft}"
            evidence = read_from(file, **{key: value})
            grid(tmp_path / folder, [(method, changes) for method in methods], environment=evidence)
        comparison = compare([tmp_path / folder])
        assert kinds(comparison)[f"trainer.{key}"] == "declared"
        assert not comparison.confounds
    for peft, value in (("none", 100), ("lora", 300)):
        evidence = read_from(f"tuned_adapter/embedded_{peft}", max_steps=value)
        changes = {"peft.name": peft, "trainer.max_steps": value}
        grid(tmp_path / "steps", [("kd", changes)], environment=evidence)
    assert [each.key for each in compare([tmp_path / "steps"]).confounds] == ["trainer.max_steps"]


def test_the_last_file_counts_and_that_of_a_pair_is_for_no_adapter(tmp_path: Path) -> None:
    key = "trainer.learning_rate"
    own, lora = (
        read_from(file, learning_rate=1e-2) for file in ("recipe/embedded", "tuned_adapter/embedded_lora")
    )
    full = read_from("recipe/embedded", learning_rate=3e-3)
    ways = {
        "both": (full["tuned"] + lora["tuned"], 1e-2, True),
        "overridden": (full["tuned"] + lora["tuned"], 3e-3, False),
        "untuned": (own["tuned"], 1e-2, False),
        "of full training": (read_from("tuned/embedded_kd", learning_rate=1e-2)["tuned"], 1e-2, False),
    }
    for way, (files, rate, declared) in ways.items():
        folder = tmp_path / way
        none = 3e-3 if rate != 3e-3 else 1e-3
        grid(
            folder,
            [("kd", {"peft.name": "none", key: none})],
            environment=read_from("recipe/embedded", learning_rate=none),
        )
        grid(folder, [("kd", {"peft.name": "lora", key: rate})], environment={"tuned": files})
        assert (kinds(compare([folder]))[key] == "declared") == declared, way


def test_a_rate_set_by_hand_for_one_adapter_is_a_confound(tmp_path: Path) -> None:
    grid(tmp_path, [("kd", {"peft.name": "none"})])
    grid(
        tmp_path,
        [("kd", {"peft.name": "lora", "trainer.learning_rate": 1.0})],
        by_hand="peft=lora trainer.learning_rate=1",
    )
    assert [each.key for each in compare([tmp_path]).confounds] == ["trainer.learning_rate"]


def test_a_group_of_keys_that_only_one_method_uses_names_nobody(tmp_path: Path) -> None:
    sampling = {"rollouts.name": "default", "rollouts.max_new_tokens": 64}
    grid(tmp_path, [("sft", {}), ("kd", {}), ("gkd", sampling)])
    comparison = compare([tmp_path])
    assert labels(comparison) == ["sft", "gkd", "kd"]
    assert comparison.swept == ("method.name",)
    assert {key: kinds(comparison)[key] for key in sampling} == dict.fromkeys(sampling, "own")
    assert not comparison.confounds


def test_sampling_that_was_chosen_among_two_names_its_groups(tmp_path: Path) -> None:
    grid(tmp_path, [("kd", {})])
    grid(tmp_path, [("gkd", {"rollouts.name": name}) for name in ("default", "hot")])
    assert labels(compare([tmp_path])) == ["gkd rollouts=default", "gkd rollouts=hot", "kd"]
    grid(tmp_path / "keys", [("kd", {})])
    tokens = [{"rollouts.name": "default", "rollouts.max_new_tokens": n} for n in (8, 64)]
    grid(tmp_path / "keys", [("gkd", each) for each in tokens])
    told = compare([tmp_path / "keys"])
    assert labels(told) == ["gkd max_new_tokens=8", "gkd max_new_tokens=64", "kd"]


def test_two_presets_declare_nothing(tmp_path: Path) -> None:
    grid(tmp_path, [("sft", {"trainer.learning_rate": 1e-3})], by_hand="experiment=one")
    grid(tmp_path, [("kd", {})], by_hand="experiment=other")
    assert [each.key for each in compare([tmp_path]).confounds] == ["trainer.learning_rate"]


def test_keys_of_an_adapter_belong_to_it(tmp_path: Path) -> None:
    lora = {"peft.name": "lora", "peft.r": 8, "peft.lora_alpha": 16}
    grid(tmp_path, [("kd", lora), ("kd", {})])
    comparison = compare([tmp_path])
    assert labels(comparison) == ["peft=none", "lora"]
    assert {key for key, kind in kinds(comparison).items() if kind == "own"} == {"peft.r", "peft.lora_alpha"}


def test_another_seed_may_move_with_the_seed(tmp_path: Path) -> None:
    for method in ("sft", "kd"):
        for seed in (0, 1):
            write_job(tmp_path, method, seed, {"nll": 0.5}, changes={"data.split_seed": seed})
    comparison = compare([tmp_path])
    assert labels(comparison) == ["sft", "kd"]
    assert kinds(comparison)["data.split_seed"] == "seed"


def test_cosmetic_keys_do_not_differ(tmp_path: Path) -> None:
    grid(
        tmp_path,
        [("sft", {"name": "a", "output_dir": "x", "tracker.name": "wandb", "trainer.save_steps": 9})],
    )
    grid(tmp_path, [("kd", {"tracker.tags": ["late"]})])
    assert kinds(compare([tmp_path])) == {"method.name": "swept"}


@pytest.mark.parametrize("best", [False, True])
def test_when_checkpoints_are_saved_differs_where_the_best_is_the_product(tmp_path: Path, best: bool) -> None:
    kept = {"trainer.load_best_model_at_end": best}
    grid(tmp_path, [("sft", kept), ("kd", {**kept, "trainer.save_steps": 7})])
    assert [each.key for each in compare([tmp_path]).confounds] == ["trainer.save_steps"] * best


def test_keys_that_a_run_does_not_use_do_not_differ(tmp_path: Path) -> None:
    grid(tmp_path, [("kd", {"method.temperature": t}) for t in (1.0, 2.0)])
    grid(tmp_path, [("sft", {})], environment={"ignored": ["method.temperature"]})
    assert labels(compare([tmp_path])) == ["sft", "kd temperature=1", "kd temperature=2"]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"versions": {"torch": "2.6.0"}}, "version of torch"),
        ({"git": {"revision": "0123456789ab", "dirty": None}}, "code"),
        ({"git": {"revision": "9f31c2d5a7be", "dirty": "ffff"}}, "code"),
        ({"code": "0.1.0+abc"}, "code"),
        ({"device": "1 x H100"}, "device"),
        ({"fingerprints": {"data.train_file": "aa"}}, "contents of data.train_file"),
    ],
)
def test_what_the_runs_recorded_beside_the_config(
    tmp_path: Path, environment: dict[str, Any], told: str
) -> None:
    grid(tmp_path, [("sft", {})])
    grid(tmp_path, [("kd", {})], environment=environment)
    assert [each.key for each in compare([tmp_path]).confounds] == [told]


@pytest.mark.parametrize("key", ["data.train_file", "model.teacher.path"])
def test_one_file_under_two_paths_is_no_difference(tmp_path: Path, key: str) -> None:
    told = {"fingerprints": {key: "aa"}}
    for folder, content in (("equal", "aa"), ("other", "bb")):
        grid(tmp_path / folder, [("sft", {key: "./rows"})], environment=told)
        grid(tmp_path / folder, [("kd", {key: "/there/rows"})], environment={"fingerprints": {key: content}})
    assert not compare([tmp_path / "equal"]).confounds
    assert key in [each.key for each in compare([tmp_path / "other"]).confounds]
    grid(tmp_path / "equal", [("sft", {key: "../rows"})], environment=told, finished=9e9)
    assert [each.why.partition(":")[0] for each in compare([tmp_path / "equal"]).left_out][:1] == [
        "done again"
    ]


def test_a_tracker_s_version_is_nobody_s_business(tmp_path: Path) -> None:
    grid(tmp_path, [("sft", {})])
    grid(tmp_path, [("kd", {})], environment={"versions": {"torch": "2.13.0", "wandb": "0.32"}})
    assert not compare([tmp_path]).confounds


@pytest.mark.parametrize("key", ["model.student.path", "model.student.adapter"])
def test_other_contents_of_a_swept_path_are_what_was_asked_for(tmp_path: Path, key: str) -> None:
    for where, digest in (("tiny", "aa"), ("small", "bb")):
        told = {"fingerprints": {key: digest, f"{key}.config": digest}}
        grid(tmp_path, [("kd", {key: where})], environment=told)
    assert not compare([tmp_path]).confounds


def test_students_that_start_apart_are_a_confound_unless_swept(tmp_path: Path) -> None:
    grid(tmp_path / "same", [("sft", {})])
    grid(tmp_path / "same", [("kd", {})], before=0.7)
    assert [each.key for each in compare([tmp_path / "same"]).confounds] == ["nll of the student before"]
    grid(tmp_path / "swept", [("kd", {})])
    grid(tmp_path / "swept", [("kd", {"peft.name": "prompt"})], before=0.7)
    assert not compare([tmp_path / "swept"]).confounds


@pytest.mark.parametrize("key", ["eval.max_new_tokens", "data.max_length"])
def test_students_that_are_scored_in_another_way_do_not_start_apart(tmp_path: Path, key: str) -> None:
    for value, before in ((4, 0.7), (40, 0.8)):
        grid(tmp_path, [("sft", {key: value}), ("kd", {key: value})], before=before)
    assert not compare([tmp_path]).confounds
    grid(tmp_path, [("gkd", {key: value})], before=0.9)
    assert [each.key for each in compare([tmp_path]).confounds] == ["nll of the student before"]


def test_overrides_of_a_command_line() -> None:
    command = "python run.py -m method=kd 'data.train_file=a b.jsonl' +trainer.x=1 --config-dir=mine/conf"
    assert given(command) == {"method": "kd", "data.train_file": "a b.jsonl", "trainer.x": "1"}
    assert given("python 'unclosed") == {}


def test_paths_that_end_alike_are_two_groups(tmp_path: Path) -> None:
    grid(tmp_path, [("kd", {"model.student.path": path}) for path in ("a/student", "b/student")])
    assert labels(compare([tmp_path])) == ["path=a/student", "path=b/student"]
    grid(tmp_path, [("kd", {"model.student.path": "c/other"})])
    assert len(compare([tmp_path]).groups) == 3


def test_numbers_that_begin_alike_are_two_groups(tmp_path: Path) -> None:
    grid(tmp_path, [("kd", {"trainer.learning_rate": rate}) for rate in (1e-4, 1.00000001e-4)])
    assert labels(compare([tmp_path])) == ["learning_rate=0.0001", "learning_rate=0.000100000001"]


@pytest.mark.parametrize(
    ("value", "text", "short"),
    [
        (None, "null", "null"),
        (True, "true", "true"),
        (2.0, "2", "2"),
        (1e-3, "0.001", "0.001"),
        (0.1234567891, "0.1234567891", "0.123457"),
        ("models/a/", "models/a/", "a"),
        ([0, 2], "[0, 2]", "[0, 2]"),
        ("", "", ""),
    ],
)
def test_values_as_a_person_writes_them(value: Any, text: str, short: str) -> None:
    assert shown(value) == text
    assert shown(value, whole=False) == short
