"""Checks that need several parts of the config, or a registry, and neither data nor models."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from distil import ranks
from distil.adapters.base import ADAPTERS, Adapter
from distil.config.checks import check
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.data.base import DATA
from distil.methods.base import METHODS, Method
from distil.metrics.base import METRICS
from distil.teacher_cache.formats.base import format_of
from distil.types import REFERENCE, InputError

NOT_IN_PARTS = {
    "fsdp": "Start it by accelerate launch --config_file conf/accelerate/fsdp2.yaml instead.",
    "deepspeed": "Take accelerate launch --config_file conf/accelerate/fsdp2.yaml instead.",
    "accelerator_config": "Its ways to cut a batch would count rows twice: leave it out.",
    "parallelism_config": "Only conf/accelerate/fsdp2.yaml cuts models up so far: leave it out.",
    "train_sampling_strategy": "Its order hangs on the chance of each process: leave it out.",
    "ignore_data_skip": "Rows that fill up an epoch could not be told any more: leave it out.",
    "save_on_each_node": "The first process alone writes: leave it out.",
}
"""Keys of the trainer that several processes cannot have, and why."""

SHARDED = {
    "FSDP_VERSION": ("2", "fsdp_version"),
    "FSDP_AUTO_WRAP_POLICY": ("TRANSFORMER_BASED_WRAP", "fsdp_auto_wrap_policy"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("false", "fsdp_cpu_ram_efficient_loading"),
    "FSDP_OFFLOAD_PARAMS": ("false", "fsdp_offload_params"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", "fsdp_activation_checkpointing"),
    "ACCELERATE_MIXED_PRECISION": ("no", "mixed_precision"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "dynamo_config"),
}
"""What ``accelerate launch`` may say about FSDP2, and its keys: other values were not made to work."""
UNSHARDED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
"""What it may ask for that would train otherwise than our counts think."""
NOT_SHARDED = ("fp16", "bf16", "gradient_checkpointing", "torch_compile", "activation_checkpointing")
"""Keys of the trainer that were not made to work on models in parts."""


def validate(config: ExperimentConfig) -> None:
    """Raise InputError for a config that cannot run whatever its files hold. Imports nothing heavy."""
    method = METHODS.get(config.method.name)
    DATA.get(config.data.name)
    _check_adapter(config, ADAPTERS.get(config.peft.name).factory(config.peft))
    for metric in config.eval.metrics:
        METRICS.get(metric)
    _check_teacher_cache(config, method.factory(config.method))
    check(
        not (config.run.max_skipped_steps and config.trainer.fp16),
        f"run.max_skipped_steps={config.run.max_skipped_steps} with trainer.fp16=true: its scaler leaves out "
        "steps by itself, and a loss that is no number stops the run. Take trainer.bf16=true, or "
        "run.max_skipped_steps=0.",
    )
    teacher, student = config.model.teacher.path, config.model.student.path
    if method.factory(config.method).needs_teacher:
        check(
            teacher is not None,
            f"model.teacher.path=null, and method={config.method.name} learns from a teacher. Give "
            "model.teacher.path=FOLDER_OR_HUB_NAME, or a method that needs none: method=sft.",
        )
    check(
        teacher is not None or student is not None,
        "model.student.path=null and model.teacher.path=null: give at least one, a folder or a hub name, "
        "or choose a pair: model=embedded, gpt2, qwen, smollm2.",
    )


def _check_teacher_cache(config: ExperimentConfig, method: Method[MethodConfig]) -> None:
    """Refuse a cache that cannot say what the method asks about the data set."""
    kept = format_of(config.teacher_cache)
    for term in method.questions(REFERENCE):
        why = kept.refusal(term)
        check(why is None, f"teacher_cache={kept.config.name} with method={config.method.name}: {why}.")


def _check_adapter(config: ExperimentConfig, adapter: Adapter[Any]) -> None:
    """What an adapter needs, and what does not go with it."""
    name, model = config.peft.name, config.model
    check(
        not config.trainer.gradient_checkpointing or adapter.gradient_checkpointing,
        f"trainer.gradient_checkpointing=true with peft={name}: it does not work in PEFT. Set it to false: "
        "an adapter needs little memory for gradients anyway.",
    )
    check(
        not model.teacher.is_self or adapter.keeps_base,
        _why_not_self(config, adapter),
    )
    check(
        adapter.quantization is None or model.student.init != "random",
        f"peft={name} with model.student.init=random: quantised weights are loaded, not drawn. Take "
        "peft=lora, or a pretrained student.",
    )
    existing = model.student.adapter
    check(
        existing is None or adapter.adapts,
        f"model.student.adapter={existing} with peft={name}: choose the peft that it was made with.",
    )
    check(
        existing is None or adapter.no_resume is None,
        f"model.student.adapter={existing} with peft={name}: {adapter.no_resume}",
    )


def check_packages(config: ExperimentConfig) -> None:
    """Raise InputError for a package that the config needs and that is not installed. Imports none."""
    adapter = ADAPTERS.get(config.peft.name).factory(config.peft)
    keys = dict.fromkeys(adapter.packages, f"peft={config.peft.name}")
    kind = config.model.teacher.quantization
    if kind is not None:
        keys.setdefault("bitsandbytes", f"model.teacher.quantization={kind}")
    for package, key in keys.items():
        check(
            find_spec(package) is not None,
            f"{key} needs the package {package}, which is not installed: "
            "pip install 'distil-runner[adapters]'",
        )


def _why_not_self(config: ExperimentConfig, adapter: Adapter[Any]) -> str:
    if not adapter.adapts:
        return (
            "model.teacher.path=self is the student with its adapter off, and peft=none has none. Choose "
            "peft=lora (or another), or give the teacher a path."
        )
    return (
        f"model.teacher.path=self is the student with its adapter off, but this peft={config.peft.name} "
        "changes the base itself (peft.bias or peft.init_lora_weights). Set peft.bias=none and "
        "peft.init_lora_weights=true."
    )


def check_processes(config: ExperimentConfig) -> None:
    """Raise InputError for what cannot be trained in several processes."""
    check_launch()
    world = ranks.world_size()
    if world == 1:
        return
    said = f"This run has {world} processes (WORLD_SIZE={world})"
    missing = [
        name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]
    if missing:
        raise InputError(
            f"{said}, but {', '.join(missing)} is not set: start it by torchrun, or unset WORLD_SIZE."
        )
    chosen = config.trainer.arguments()
    for key, why in NOT_IN_PARTS.items():
        if chosen.get(key) not in (None, False, "", [], {}, "random", "sequential"):
            raise InputError(f"{said}: trainer.{key}={chosen[key]} does not go with that. {why}")
    for who, model in (("teacher", config.model.teacher), ("student", config.model.student)):
        if model.device_map is not None:
            raise InputError(
                f"{said}, each with whole models of its own on one device: leave out model.{who}.device_map."
            )
    _check_sharded(config, said)


def check_launch() -> None:
    """Raise InputError where ``accelerate launch`` asks for what is not done here."""
    for name, what in UNSHARDED.items():
        check(
            os.environ.get(name, "false").lower() != "true",
            f"accelerate launch asks for {what}, which is not done here. Take --config_file "
            "conf/accelerate/fsdp2.yaml, or torchrun for whole models in each process.",
        )
    check(
        not ranks.sharded() or ranks.world_size() > 1,
        "accelerate launch asks for FSDP with one process: there is nothing to cut up. Give "
        "--num_processes 2 or more, or start it by python.",
    )


def _check_sharded(config: ExperimentConfig, said: str) -> None:
    """What does not go with models cut up over the processes."""
    if not ranks.sharded():
        return
    for name, (good, key) in SHARDED.items():
        given = os.environ.get(name, good)
        check(
            given.lower() == good.lower(),
            f"accelerate's config file has {key} {given}; what works is {good}, as in "
            "conf/accelerate/fsdp2.yaml.",
        )
    said += ", which share out their models (FSDP2)"
    chosen = config.trainer.arguments()
    for key in NOT_SHARDED:
        check(
            not chosen.get(key),
            f"{said}: trainer.{key}={chosen.get(key)} does not go with that: leave it out.",
        )
    check(
        config.peft.name == "none", f"{said}: peft={config.peft.name} does not go with that. Take peft=none."
    )
    check(
        config.model.student.dtype == "float32",
        f"{said}: model.student.dtype={config.model.student.dtype} does not go with that. Take float32.",
    )
    check(
        config.model.teacher.quantization is None,
        f"{said}: leave out model.teacher.quantization, which FSDP2 cannot cut up.",
    )
