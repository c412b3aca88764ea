"""What the trainer's keys ask of optimizer, schedule, recomputation and compiler, told before models load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distil.adapters.none import NoneConfig
from distil.config.processes import check_processes
from distil.config.schema import ExperimentConfig
from distil.config.trainer import TrainerConfig
from distil.training import training_arguments
from distil.types import InputError


def made(folder: Path, keys: dict[str, Any]) -> Any:
    return training_arguments(ExperimentConfig(peft=NoneConfig(), trainer=TrainerConfig(**keys)), folder)


@pytest.mark.parametrize(
    "keys",
    [
        {"optim_args": "foo"},
        {"optim": "sgd", "optim_args": "momentum=fast"},
        {"lr_scheduler_kwargs": {"foo": 1}},
        {"lr_scheduler_type": "cosine_with_min_lr"},
        {"lr_scheduler_type": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {"min": 1}},
        {"lr_scheduler_type": "warmup_stable_decay"},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"foo": 1}},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"foo": 1}},
        {"torch_compile": True, "torch_compile_backend": "foo"},
        {"torch_compile": True, "torch_compile_mode": "foo"},
    ],
)
@pytest.mark.filterwarnings("ignore:.*_checkpointing")
def test_what_a_library_refuses_is_told_with_its_keys(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        made(tmp_path, keys)
    key, value = next((key, value) for key, value in reversed(keys.items()) if value is not True)
    assert f"trainer.{key}={value}".replace("gradient_", "activation_") in str(told.value)


@pytest.mark.parametrize(
    ("optim", "given", "unread"),
    [
        ("sgd", "momentum=0.9,foo=1", "foo"),
        ("adamw_torch", "weight_decay=0.1", "weight_decay"),
        ("adamw_torch_fused", "eps=1e-3", "eps"),
        ("adafactor", "clip_threshold=2.0", "clip_threshold"),
    ],
)
def test_what_nothing_reads_of_an_optimizers_arguments_is_told(
    optim: str, given: str, unread: str, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=f"optim_args={given}: nothing reads {unread} of trainer.optim={optim}"
    ):
        made(tmp_path, {"optim": optim, "optim_args": given})


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"accelerator_config": "nowhere.json"}, "nowhere.json"),
        ({"accelerator_config": {"foo": 1}}, "foo"),
        ({"fsdp_config": "nowhere.json", "fsdp": "full_shard"}, "nowhere.json"),
    ],
)
def test_what_transformers_refuses_of_files_and_settings_is_told(
    keys: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"^trainer: transformers refuses these keys together: .*{told}"):
        made(tmp_path, keys)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=true"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 2}},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"},
        {"lr_scheduler_type": "greedy", "eval_strategy": "steps"},
        {"optim": "adamw_bnb_8bit"},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
        {"torch_compile": True, "torch_compile_mode": "reduce-overhead"},
    ],
)
def test_what_works_is_let_through(keys: dict[str, Any], tmp_path: Path) -> None:
    arguments = made(tmp_path, keys)
    assert {key: getattr(arguments, key) for key in keys} == keys


@pytest.mark.parametrize(
    ("keys", "way"),
    [
        ({"fsdp": "full_shard"}, "fsdp2.yaml"),
        ({"deepspeed": "z.json"}, "zero3.yaml"),
        ({"ddp_backend": "gloo"}, "torchrun"),
    ],
)
def test_what_is_of_several_processes_names_how_they_are_started(
    keys: dict[str, Any], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(
        InputError, match=rf"is of several processes, and this run is one\. Start it by .*{way}"
    ):
        check_processes(ExperimentConfig(peft=NoneConfig(), trainer=TrainerConfig(**keys)))
    check_processes(ExperimentConfig(peft=NoneConfig(), trainer=TrainerConfig(deepspeed={}, fsdp_config={})))
