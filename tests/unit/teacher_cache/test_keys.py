"""A cache is found by what it was made from, and by nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distil.adapters.base import adapter_of
from distil.adapters.qlora import QloraConfig
from distil.config.schema import ExperimentConfig, ModelConfig, StudentConfig, TeacherConfig
from distil.data.jsonl import JsonlConfig
from distil.identity import rows_digest
from distil.methods.kd import KDConfig
from distil.models import load_student, load_teacher, load_tokenizer
from distil.models.load import load_skeleton
from distil.teacher_cache.formats.base import format_of
from distil.teacher_cache.formats.hidden import HiddenConfig
from distil.teacher_cache.formats.topk import TopKConfig
from distil.teacher_cache.keys import ingredients, key_of, teacher_print, tokenizer_print
from tests.training import random_rows, tiny_llama

ROWS = random_rows(5)


def config(teacher: TeacherConfig, student: StudentConfig | None = None, **keys: Any) -> ExperimentConfig:
    model = ModelConfig("m", teacher, student or StudentConfig())
    from distil.adapters.none import NoneConfig

    return ExperimentConfig(method=KDConfig(), model=model, peft=NoneConfig(), data=JsonlConfig(), **keys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("models") / "teacher"
    tiny_llama(1).save_pretrained(where)
    return where


def printed(experiment: ExperimentConfig, autocast: torch.dtype | None = None) -> dict[str, Any]:
    return teacher_print(experiment, load_student(experiment.model, experiment.seed), autocast)


def test_the_place_and_name_of_a_teacher_do_not_matter(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    tiny_llama(1).save_pretrained(elsewhere)
    one, other = (printed(config(TeacherConfig(path=str(path)))) for path in (folder, elsewhere))
    assert one == other
    assert printed(config(TeacherConfig(path=str(folder)), seed=1, name="n", output_dir="o")) == one


def test_everything_that_changes_the_teachers_numbers_does(folder: Path, tmp_path: Path) -> None:
    tiny_llama(2).save_pretrained(tmp_path / "other")
    path = str(folder)
    prints = [
        printed(config(TeacherConfig(path=path))),
        printed(config(TeacherConfig(path=str(tmp_path / "other")))),
        printed(config(TeacherConfig(path=path, dtype="bfloat16"))),
        printed(config(TeacherConfig(path=path, attn_implementation="eager"))),
        printed(config(TeacherConfig(path=path, quantization="nf4"))),
        printed(config(TeacherConfig(path=path)), torch.bfloat16),
        printed(config(TeacherConfig(path=path)), torch.float16),
    ]
    assert len({key_of(one) for one in prints}) == len(prints)


def test_a_teacher_that_is_the_students_own_base_is_what_that_is_made_of(folder: Path) -> None:
    def own(seed: int = 0, **keys: Any) -> str:
        made = config(TeacherConfig(path="self"), StudentConfig(path=str(folder), **keys), seed=seed)
        return key_of(printed(made))

    assert own() == own(seed=1)
    assert own(init="random") != own(init="random", seed=1)
    assert len({own(), own(keep_layers=[0]), own(keep_layers=[1]), own(init="random")}) == 4


def test_a_teacher_that_is_a_base_of_few_bits_is_told_by_how_these_hold_it(tmp_path: Path) -> None:
    tiny_llama(1, width=64).save_pretrained(tmp_path)
    made = config(TeacherConfig(path="self"), StudentConfig(path=str(tmp_path)))

    def own(**keys: Any) -> str:
        peft = QloraConfig(**keys)
        packed = load_student(made.model, 0, quantization=adapter_of(peft).quantization)
        return key_of(teacher_print(replace(made, peft=peft), packed, None))

    other: list[dict[str, Any]] = [
        {"bits": 8},
        {"bnb_4bit_quant_type": "fp4"},
        {"bnb_4bit_use_double_quant": False},
        {"bnb_4bit_compute_dtype": "bfloat16"},
    ]
    assert own() == own(r=2, bnb_4bit_compute_dtype="float32"), "auto, of a student in float32"
    assert len({own(), *(own(**keys) for keys in other)}) == 5


def changed(row: int, column: str) -> list[dict[str, Any]]:
    rows = copy.deepcopy(ROWS)
    rows[row][column][-1] = 2 if column == "input_ids" else -100
    return rows


BASE: dict[str, Any] = {
    "teacher": {"weights": "a"},
    "tokenizer": "t",
    "rows": rows_digest(ROWS),
    "kept": format_of(TopKConfig()),
    "shared_vocabulary": 64,
}


@pytest.mark.parametrize(
    "other",
    [
        {"teacher": {"weights": "b"}},
        {"tokenizer": "u"},
        {"rows": rows_digest(changed(2, "input_ids"))},
        {"rows": rows_digest(changed(2, "labels"))},
        {"rows": rows_digest(ROWS[::-1])},
        {"rows": rows_digest(ROWS[:-1])},
        {"kept": format_of(TopKConfig(k=8))},
        {"kept": format_of(TopKConfig(temperatures=[1]))},
        {"kept": format_of(HiddenConfig())},
        {"shared_vocabulary": 63},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_key_changes_with_each_ingredient(other: dict[str, Any]) -> None:
    assert key_of(ingredients(**BASE)) != key_of(ingredients(**(BASE | other)))


def test_a_key_does_not_change_with_where_caches_lie_or_how_numbers_are_written() -> None:
    for same in (TopKConfig(folder="/elsewhere"), TopKConfig(temperatures=[2, 1])):
        assert key_of(ingredients(**BASE)) == key_of(ingredients(**(BASE | {"kept": format_of(same)})))


def test_hidden_states_do_not_hang_on_the_ids_that_the_student_shares() -> None:
    hidden = BASE | {"kept": format_of(HiddenConfig())}
    assert ingredients(**hidden) == ingredients(**(hidden | {"shared_vocabulary": 3}))


def test_the_tokenizer_is_told_by_its_tokens() -> None:
    def tokenizer() -> Any:
        return load_tokenizer(ModelConfig("m", TeacherConfig(path="distil:embedded/teacher")))[0]

    one, other = tokenizer(), tokenizer()
    assert tokenizer_print(one) == tokenizer_print(other)
    other.add_tokens(["new"])
    assert tokenizer_print(one) != tokenizer_print(other)


@pytest.mark.parametrize("build", [tiny_llama, lambda seed: tiny_llama(seed, width=24)])
def test_a_skeleton_tells_what_the_teacher_does(build: Callable[[int], Any], tmp_path: Path) -> None:
    model = build(3)
    model.generation_config.eos_token_id = [1, 7]
    model.save_pretrained(tmp_path)
    asked = ModelConfig("m", TeacherConfig(path=str(tmp_path)))
    before = torch.random.get_rng_state()
    bones, teacher = load_skeleton(asked), load_teacher(asked)
    assert teacher is not None
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.is_meta for p in bones.parameters())
    assert bones.num_parameters() == teacher.num_parameters()
    assert bones.generation_config is not None
    assert bones.generation_config.eos_token_id == [1, 7]
    assert bones.config.hidden_size == teacher.config.hidden_size
