"""How a training ends: the student, the checkpoints and the record, whether it came to its end or not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)

from llm_distil import ArgumentError, DistillationConfig, KnowledgeDistillation

Load = Callable[..., PreTrainedModel]
Make = Callable[..., DistillationConfig]


def arguments(folder: Path, **keys: Any) -> TrainingArguments:
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }
    return TrainingArguments(output_dir=str(folder), **(usual | keys))


def stop_in_step(student: PreTrainedModel, step: int) -> Any:
    """Ctrl-C in the forward pass of this step, of those with one batch each."""
    passes = 0

    def interrupt(module: torch.nn.Module, _inputs: Any) -> None:
        nonlocal passes
        passes += module.training
        if passes == step:
            raise KeyboardInterrupt

    return student.register_forward_pre_hook(interrupt)


def check_it_came_back(student: PreTrainedModel) -> None:
    assert "forward" not in vars(student)
    assert "_original_forward" not in vars(student)
    assert not any(module.training for module in student.modules())
    assert all(p.grad is None for p in student.parameters())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in student.modules())
    embedding: Any = student.get_input_embeddings()
    assert not embedding._forward_hooks
    assert next(student.parameters()).dtype == torch.float32


def scores_of_a_copy(student: PreTrainedModel, teacher: PreTrainedModel, load: Load, rows: Dataset) -> Any:
    fresh = load("gpt2")
    fresh.load_state_dict(student.state_dict())
    config = DistillationConfig("a", "b", max_length=96)
    return KnowledgeDistillation(teacher, fresh, config).evaluate(rows)


@pytest.mark.parametrize("stopped", [True, False])
def test_a_student_comes_back_as_it_was_but_for_its_weights(
    stopped: bool,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Mixed precision and gradient checkpointing are the training's, and ended trainings say where."""
    learns = KnowledgeDistillation(teacher, student, make())
    before = student.state_dict()["lm_head.weight"].clone()
    own = arguments(tmp_path / "own", bf16=True, gradient_checkpointing=True)
    if stopped:
        hook = stop_in_step(student, 3)
        with pytest.raises(KeyboardInterrupt):
            learns.train(rows, None, own)
        hook.remove()
    else:
        student.config.use_cache = False
        learns.train(rows, None, own)
    check_it_came_back(student)
    assert student.config.use_cache is stopped, "as it came"
    assert not torch.equal(student.state_dict()["lm_head.weight"], before)
    assert learns.evaluate(rows) == scores_of_a_copy(student, teacher, load, rows)
    learns.command()
    assert ("it was stopped after step 2 of 4" in caplog.text) is stopped


def test_a_stopped_training_has_no_command_until_it_is_gone_on_with(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    learns = KnowledgeDistillation(teacher, student, make(save_steps=1))
    hook = stop_in_step(student, 3)
    with pytest.raises(KeyboardInterrupt):
        learns.train(rows)
    hook.remove()
    learns.save_student(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text("utf-8")
    assert "No command line says the same: it was stopped after step 2 of 4." in card
    learns.train(rows, resume_from_checkpoint=True)
    caplog.clear()
    learns.command()
    assert "does not say all" not in caplog.text


def test_a_training_that_never_began_leaves_no_trace(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    learns.train(rows)
    said, history = learns.command(), learns.history
    labelled = rows.add_column("labels", rows["input_ids"])
    with pytest.raises(ArgumentError):
        learns.train(labelled, resume_from_checkpoint="nowhere")
    hook = stop_in_step(student, 1)
    with pytest.raises(KeyboardInterrupt):
        learns.train(labelled)
    hook.remove()
    assert (learns.command(), learns.history) == (said, history)
    check_it_came_back(student)


def test_checkpoints_in_a_folder_of_the_users_own_are_set_aside(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = arguments(tmp_path / "own", max_steps=1)
    learns = KnowledgeDistillation(teacher, student, make())
    learns.train(rows, None, own)
    (tmp_path / "own" / "checkpoint-7").mkdir()  # another trainer's
    with pytest.raises(ArgumentError):
        learns.train(rows, None, arguments(tmp_path / "own", eval_strategy="epoch"))
    assert (tmp_path / "own" / "checkpoint-1").is_dir(), "nothing was trained"
    with caplog.at_level(logging.WARNING):
        learns.train(rows, None, arguments(tmp_path / "own", max_steps=2))
    (aside,) = (tmp_path / "own").glob("*finished-1")
    assert sorted(folder.name for folder in aside.iterdir()) == ["checkpoint-1", "checkpoint-7"]
    assert (aside / "checkpoint-1" / "model.safetensors").is_file()
    assert str(aside) in caplog.text
    assert (tmp_path / "own" / "checkpoint-2").is_dir()


def test_the_librarys_own_checkpoints_of_a_finished_training_are_set_aside_too(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make()
    for _ in range(2):
        KnowledgeDistillation(teacher, student, config).train(rows)
    root = Path(config.output_dir) / "kd" / "checkpoints"
    assert sorted(folder.name for folder in root.iterdir()) == ["checkpoint-4", "finished-1"]
    assert (root / "finished-1" / "checkpoint-4" / "model.safetensors").is_file(), "its only student"
    assert f"which came to its end, are now in {root / 'finished-1'}" in caplog.text


def test_a_prefix_and_gradient_checkpointing_are_refused_by_name(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    own = arguments(tmp_path, max_steps=1, gradient_checkpointing=True)
    prefix = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True, peft_type="prefix"))
    with pytest.raises(ArgumentError, match=r"gradient_checkpointing=True with peft_type=\"prefix\""):
        prefix.train(rows, None, own)
    lora = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True))
    assert lora.train(rows, None, own).global_step == 1


class Stop(TrainerCallback):
    """Ends the training after two steps."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.heard.append(type(kwargs["model"]).__name__)

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 2

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
        self.heard += logs


def test_callbacks_of_the_callers_own_are_heard_and_can_end_a_training(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make(logging_steps=1, eval_steps=1, save_steps=1)
    learns, stop = KnowledgeDistillation(teacher, student, config), Stop()
    assert learns.train(rows, rows, callbacks=[stop]).global_step == 2
    assert stop.heard[0] == type(student).__name__
    assert {"loss", "eval_loss", "eval_kl_to_teacher"} <= set(stop.heard)
    learns.command()
    assert "it was stopped after step 2 of 4" in caplog.text
    assert "its callbacks were the caller's own" in caplog.text
    assert learns.train(rows, callbacks=[Stop]).global_step == 2  # a class is made here, as Trainer does
    wrong: Any = [print]
    with pytest.raises(ArgumentError, match=r"callbacks\[0\] is a builtin_function.*TrainerCallback"):
        learns.train(rows, callbacks=wrong)
    alone: Any = stop
    with pytest.raises(ArgumentError, match=r"callbacks is a Stop: give a list"):
        learns.train(rows, callbacks=alone)
    watching: list[Any] = [EarlyStoppingCallback, EarlyStoppingCallback(2)]
    kept = sorted(Path(config.output_dir).rglob("checkpoint-*"))
    for early in watching:
        with pytest.raises(ArgumentError, match=r"EarlyStoppingCallback watches .* metric_for_best_model="):
            learns.train(rows, rows, callbacks=[early])
    assert sorted(Path(config.output_dir).rglob("checkpoint-*")) == kept != []
