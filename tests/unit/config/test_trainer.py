"""The trainer group: held to the installed transformers, checked in range, and honest about what is ours."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distil.adapters.none import NoneConfig
from distil.config.schema import ExperimentConfig
from distil.config.suggestions import SYNONYMS
from distil.config.trainer import OURS, TrainerConfig
from distil.config.training_arguments import CHOICES, TrainingFields
from distil.config.validate import check_packages
from distil.types import InputError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def training_arguments() -> Any:
    from transformers import TrainingArguments

    return TrainingArguments


def test_generated_file_is_what_the_script_writes_now() -> None:
    path = ROOT / "scripts" / "generate_trainer_schema.py"
    spec = importlib.util.spec_from_file_location("generate_trainer_schema", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.TARGET.read_text(encoding="utf-8") == script.generate()


def test_every_field_of_transformers_is_either_settable_or_ours(training_arguments: Any) -> None:
    theirs = {field.name for field in dataclasses.fields(training_arguments) if field.init}
    settable = {field.name for field in dataclasses.fields(TrainingFields)}
    assert settable | set(OURS) == theirs
    assert not settable & set(OURS)
    assert set(SYNONYMS["trainer"].values()) <= settable
    assert not set(SYNONYMS["trainer"]) & theirs


def test_only_what_was_set_is_passed_on(training_arguments: Any, tmp_path: Path) -> None:
    assert TrainerConfig().arguments() == {}
    config = TrainerConfig(learning_rate=3e-4, warmup_steps=0.0, bf16=False)
    assert config.arguments() == {"learning_rate": 3e-4, "warmup_steps": 0.0, "bf16": False}
    made = training_arguments(output_dir=str(tmp_path), use_cpu=True, **config.arguments())
    assert made.learning_rate == 3e-4
    assert made.adam_beta2 == training_arguments(output_dir=str(tmp_path), use_cpu=True).adam_beta2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("num_train_epochs", 0.0),
        ("max_steps", 0),
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("weight_decay", -0.1),
        ("warmup_steps", -1.0),
        ("adam_beta1", 1.0),
        ("save_steps", 0.0),
        ("save_total_limit", 0),
        ("eval_strategy", "step"),
        ("lr_scheduler_type", "cosin"),
        ("optim", "adamw"),
        ("log_level", "loud"),
        ("ddp_backend", "glue"),
        ("metric_for_best_model", "nll"),
        ("metric_for_best_model", "eval_kl_to_teacher"),
        ("auto_find_batch_size", True),
    ],
)
def test_out_of_range_names_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        TrainerConfig(**{key: value})
    message = str(caught.value)
    assert f"trainer.{key}" in message
    assert str(value).lower() in message.lower()


@pytest.mark.parametrize(
    ("given", "meant"),
    [("eval_kl_to_teacher", "kl_per_token"), ("nll", "nll_per_token"), ("agreement", "top1_agreement")],
)
def test_a_metric_of_the_table_is_told_as_the_evaluation_during_training_calls_it(
    given: str, meant: str
) -> None:
    with pytest.raises(InputError, match=rf"={given} is unknown\. Did you mean {meant}\?"):
        TrainerConfig(metric_for_best_model=given)


@pytest.mark.parametrize("optim", CHOICES["optim"])
def test_an_optimizer_names_the_package_that_transformers_imports(
    optim: str, training_arguments: Any, tmp_path: Path
) -> None:
    """What is installed it makes; of the others it says which is missing, and so do we before it loads."""
    from transformers import Trainer

    config = ExperimentConfig(peft=NoneConfig(), trainer=TrainerConfig(optim=optim))
    package = config.trainer.optimizer_package
    given = training_arguments(output_dir=str(tmp_path), use_cpu=True, optim=optim)
    if package is None or importlib.util.find_spec(package):
        made, _ = Trainer.get_optimizer_cls_and_kwargs(given)
        assert made.__module__.partition(".")[0] in ((package,) if package else ("torch", "transformers"))
        check_packages(config)
    else:
        with pytest.raises((ImportError, ValueError), match=package):
            Trainer.get_optimizer_cls_and_kwargs(given)
        with pytest.raises(InputError, match=f"optim={optim} needs the package {package}.*adamw_torch"):
            check_packages(config)


def test_pairs_that_exclude_each_other() -> None:
    with pytest.raises(InputError, match=r"bf16=true and trainer\.fp16=true"):
        TrainerConfig(bf16=True, fp16=True)
    with pytest.raises(InputError, match=r"Give trainer\.save_strategy=steps or best\.$"):
        TrainerConfig(load_best_model_at_end=True, eval_strategy="steps", save_strategy="epoch")
    assert TrainerConfig(
        load_best_model_at_end=True,
        eval_strategy="steps",
        save_strategy="steps",
        save_steps=2,
        eval_steps=0.5,
    )
    for save, evaluate in ((3, 2), (2, 4), (0.5, 2), (0.5, 0.2)):
        steps = {
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "save_steps": save,
            "eval_steps": evaluate,
        }
        with pytest.raises(InputError, match=rf"no multiple .* Give trainer\.eval_steps={save}, or "):
            TrainerConfig(load_best_model_at_end=True, **steps)
        assert TrainerConfig(**steps)
        assert TrainerConfig(load_best_model_at_end=True, **(steps | {"eval_steps": save}))
    for keys in (
        {"greater_is_better": True},
        {"metric_for_best_model": "top1_agreement", "greater_is_better": False},
    ):
        with pytest.raises(InputError, match=r"Leave trainer\.greater_is_better out"):
            TrainerConfig(**keys)
    for keys in ({"load_best_model_at_end": True, "save_strategy": "no"}, {"save_strategy": "best"}):
        with pytest.raises(InputError, match="goes by the evaluation during training"):
            TrainerConfig(eval_strategy="no", **keys)
    for key in (
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
    ):
        value = "spawn" if key.endswith("context") else 1
        with pytest.raises(InputError, match=rf"trainer\.{key} .* give trainer\.dataloader_num_workers=1"):
            TrainerConfig(**{key: value})
        assert TrainerConfig(dataloader_num_workers=1, **{key: value})
    assert TrainerConfig(auto_find_batch_size=False).auto_find_batch_size is False


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, ("loss", False)),
        ({"metric_for_best_model": "kl_per_token"}, ("kl_per_token", False)),
        ({"metric_for_best_model": "top1_agreement"}, ("top1_agreement", True)),
        ({"load_best_model_at_end": True}, ("loss", False)),
    ],
)
def test_the_best_alone_is_saved_by_the_loss_unless_another_is_named(
    given: dict[str, Any], asked: tuple[str, bool], training_arguments: Any, tmp_path: Path
) -> None:
    config = TrainerConfig(eval_strategy="steps", save_strategy="best", **given)
    made = training_arguments(output_dir=str(tmp_path), use_cpu=True, **config.arguments())
    assert (made.metric_for_best_model, made.greater_is_better) == asked


@pytest.mark.parametrize(
    ("batch", "steps", "wanted"),
    [(16, 2, (8, 4)), (9, None, (3, 3)), (None, None, (4, 2)), (7, 3, (1, 21)), (1, 4, None)],
)
def test_less_memory_is_the_same_batch_in_more_parts(
    batch: int | None, steps: int | None, wanted: tuple[int, int] | None
) -> None:
    config = TrainerConfig(per_device_train_batch_size=batch, gradient_accumulation_steps=steps)
    told = config.with_less_memory()
    if wanted is None:
        assert "is 1 already" in told
        return
    assert f"per_device_train_batch_size={wanted[0]} trainer.gradient_accumulation_steps={wanted[1]} " in told
    assert wanted[0] * wanted[1] == (batch or 8) * (steps or 1)
    with pytest.raises(InputError, match=f"per_device_train_batch_size={wanted[0]} "):
        TrainerConfig(
            per_device_train_batch_size=batch, gradient_accumulation_steps=steps, auto_find_batch_size=True
        )


def test_checkpoints_hold_all_that_a_run_needs_to_go_on() -> None:
    """Without the optimizer a resumed run would end in other weights."""
    with pytest.raises(InputError, match="save_only_model"):
        TrainerConfig(save_only_model=True)


def test_half_precision_without_a_gpu_is_refused(tmp_path: Path) -> None:
    """Without a word transformers would train in float32."""
    from distil import training

    config: Any = SimpleNamespace(trainer=TrainerConfig(fp16=True, use_cpu=True), seed=0)
    with pytest.raises(InputError, match=r"trainer\.fp16=true needs a GPU"):
        training.training_arguments(config, tmp_path)
