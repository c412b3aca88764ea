"""Small things that the library sees to around a training, each of which would be missed without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from distil.api.errors import in_words
from distil.api.inputs import end_ids
from distil.api.students import place
from distil.api.training import Job, _given_arguments
from distil.config.schema import ExperimentConfig
from distil.types import RunFailed
from llm_distil import ArgumentError, DistillationConfig, KnowledgeDistillation
from tests.conftest import build_gpt2, build_llama
from tests.training import Setup, build_method

Make = Callable[..., DistillationConfig]
ROWS = [{"input_ids": [3, 4, 5, 6, 7]}, {"input_ids": [8, 9, 10]}] * 2


def arguments(folder: Path, **keys: Any) -> TrainingArguments:
    usual: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    return TrainingArguments(output_dir=str(folder), **(usual | keys))


def test_the_teacher_is_evaluated_without_dropout_whatever_its_mode(make: Make) -> None:
    teacher = build_gpt2(seed=1, resid_pdrop=0.5).train()
    learns = KnowledgeDistillation(teacher, build_gpt2(seed=2), make())
    assert not any(module.training for module in teacher.modules())
    teacher.train()  # by the user's own loop, in between
    first = learns.evaluate(ROWS)
    assert learns.evaluate(ROWS) == first
    assert not teacher.training


def test_the_teacher_goes_where_the_student_is() -> None:
    teacher, student = build_llama(seed=1), build_llama(seed=2).to("meta")
    place(teacher, student)
    assert all(p.is_meta for p in teacher.parameters())


def test_sequences_end_where_the_models_say() -> None:
    teacher, student = build_llama(seed=1), build_llama(seed=2)
    teacher.generation_config.eos_token_id = 7
    student.generation_config.eos_token_id = [5, 6]
    assert end_ids(None, teacher, student) == {5, 6, 7}
    teacher.generation_config.eos_token_id = None
    assert end_ids(None, teacher, student) == {5, 6}


def test_the_precision_of_the_weights_is_in_the_command(make: Make) -> None:
    teacher = build_llama(seed=1).to(torch.float16)
    student = build_llama(seed=2).to(torch.bfloat16)
    said = KnowledgeDistillation(teacher, student, make()).command()
    assert "model.teacher.dtype=float16" in said
    assert "model.student.dtype=bfloat16" in said
    whole = KnowledgeDistillation(build_llama(seed=1), build_llama(seed=2), make()).command()
    assert "dtype" not in whole


def test_checkpoints_that_nobody_can_go_on_from_are_refused(make: Make, tmp_path: Path) -> None:
    learns = KnowledgeDistillation(build_llama(seed=1), build_llama(seed=2), make())
    with pytest.raises(ArgumentError, match="save_only_model=True: nobody could go on"):
        learns.train(ROWS, None, arguments(tmp_path, save_only_model=True))


def test_nothing_replaces_a_loss_that_is_no_number(tmp_path: Path) -> None:
    """Trainer would log the mean of the steps before in its place."""
    given = arguments(tmp_path, logging_nan_inf_filter=True)
    method = build_method("kd")
    student = build_llama(seed=2)
    config = ExperimentConfig(method=method.config)
    job = Job(method, student, student, (), None, config, (), 0, 64)
    assert not _given_arguments(given, job).logging_nan_inf_filter
    assert given.logging_nan_inf_filter


def test_weights_that_the_last_step_broke_are_refused(make: Make, tmp_path: Path) -> None:
    """No checkpoint, and no later step whose loss would tell."""
    learns = KnowledgeDistillation(build_llama(seed=1), build_llama(seed=2), make())
    with pytest.raises(RunFailed, match="Step 1 left weights that are nan or infinite"):
        learns.train(ROWS, None, arguments(tmp_path, max_steps=1, learning_rate=1e38, weight_decay=1e3))


def test_rollouts_that_never_came_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="none was sampled"):
        Setup(build_method("gkd"), tmp_path).trainer().refuse_broken_student()
    Setup(build_method("kd"), tmp_path).trainer().refuse_broken_student()
    Setup(build_method("gkd", lambda_gkd=1.0), tmp_path).trainer().refuse_broken_student()


def test_a_folder_that_cannot_be_written_and_rows_nobody_evaluates_are_told(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"input_ids": [3, 4, 5]}]
    learns = KnowledgeDistillation(build_llama(seed=1), build_llama(seed=2), make())
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=r"output_dir=.*in_it: .*file is a file"):
        learns.train(rows, training_args=arguments(tmp_path / "file" / "in_it"))
    learns.train(rows, rows, training_args=arguments(tmp_path / "own"))
    assert 'eval_strategy="no": eval_dataset is not looked at while training' in caplog.text


def test_modules_that_are_nowhere_are_told_in_the_words_of_python(make: Make) -> None:
    config = make(use_peft=True, peft_type="lora", lora_target_modules=["wq"])
    with pytest.raises(ArgumentError, match=r"lora_target_modules=.*wq.* None chooses by family") as caught:
        KnowledgeDistillation(build_gpt2(seed=1), build_gpt2(seed=2), config).train(ROWS)
    assert "null" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Take int8, or null.", "Take int8, or None."),
        ("model.teacher.path=null and", "teacher_model_name=None and"),
        ("Column null is no text.", "Column null is no text."),
    ],
)
def test_a_value_is_none_and_a_name_stays(said: str, told: str) -> None:
    assert in_words(said) == told
