"""What the files of an adapter name as their base: what others can load, and no place on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import LoadedStudent
from distil.parts import load_adapted_student
from distil.results import keep_student
from distil.stages import base_recipe
from tests.adapters import experiment, peft_config, word_tokenizer
from tests.training import FAMILIES

ASSET = "distil:embedded/student"


@pytest.mark.parametrize("init", ["pretrained", "random"])
@pytest.mark.parametrize("case", ["lora", "prefix"])
def test_an_asset_is_named_as_the_user_names_it(case: str, init: str, tmp_path: Path) -> None:
    """Not by the folder that this installation keeps it in."""
    config = experiment(Path(ASSET), peft_config(case), init=init)
    student, loaded, _ = load_adapted_student(config, word_tokenizer())
    assert loaded.name == ASSET
    keep_student(
        tmp_path, student, word_tokenizer(), "A student", "python run.py", base_recipe(config, loaded)
    )
    for name in ("adapter_config.json", "distil.json", "README.md"):
        text = (tmp_path / "student" / name).read_text(encoding="utf-8")
        assert str(Path(__file__).resolve().parents[3]) not in text
        assert ASSET in text


def test_the_version_of_the_base_is_named() -> None:
    """PEFT loads the newest where its file names none."""
    config = experiment(Path(ASSET), peft_config("lora"), revision="v1")
    student: Any = load_adapted_student(config, word_tokenizer())[0]
    assert student.peft_config["default"].revision == "v1"


def test_a_base_made_from_the_teacher_is_named_as_it_is() -> None:
    """model.student.path=null: version and file are the teacher's too."""
    teacher = TeacherConfig("someone/large", revision="v2", gguf_file="q8.gguf")
    config = experiment(Path(ASSET), peft_config("lora"))
    config = replace(config, model=ModelConfig("custom", teacher, StudentConfig(keep_layers=[0])))
    model = FAMILIES["llama"](1)
    model.name_or_path = "someone/large"
    recipe = base_recipe(config, LoadedStudent(model, [0], "print"))
    assert recipe["model"]["path"] == "someone/large"
    assert recipe["model"]["revision"] == "v2"
    assert recipe["model"]["gguf_file"] == "q8.gguf"
