"""What several processes can train, and what they cannot; asked before any model loads."""

from __future__ import annotations

import os
from importlib.util import find_spec

from distil.config.schema import ExperimentConfig, check
from distil.processes import ranks
from distil.system.extras import install
from distil.types import InputError

NOT_IN_PARTS = {
    "fsdp": "Start it by accelerate launch --config_file conf/accelerate/fsdp2.yaml instead.",
    "deepspeed": "Start it by accelerate launch --config_file conf/accelerate/zero3.yaml instead.",
    "accelerator_config": "Its ways to cut a batch would count rows twice: leave it out.",
    "train_sampling_strategy": "Its order hangs on the chance of each process: leave it out.",
    "ignore_data_skip": "Rows that fill up an epoch could not be told any more: leave it out.",
    "save_on_each_node": "The first process alone writes: leave it out.",
}
"""Keys of the trainer that several processes cannot have, and why."""
OF_SEVERAL = {key: NOT_IN_PARTS[key].replace("instead", "then") for key in ("fsdp", "deepspeed")} | {
    "ddp_backend": "Start it by torchrun then, or leave the key out.",
}
"""Keys that one process cannot have, and how several are started."""

FSDP2 = {
    "FSDP_VERSION": ("2", "fsdp_version"),
    "FSDP_AUTO_WRAP_POLICY": ("TRANSFORMER_BASED_WRAP", "fsdp_auto_wrap_policy"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("false", "fsdp_cpu_ram_efficient_loading"),
    "FSDP_OFFLOAD_PARAMS": ("false", "fsdp_offload_params"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", "fsdp_activation_checkpointing"),
}
ZERO3 = {
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": ("none", "deepspeed_config_file"),
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": ("3", "zero_stage"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": ("none", "offload_optimizer_device"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": ("none", "offload_param_device"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("auto", "gradient_accumulation_steps"),
    "ACCELERATE_GRADIENT_CLIPPING": ("auto", "gradient_clipping"),
}
EITHER = {
    "ACCELERATE_MIXED_PRECISION": ("no", "mixed_precision"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "dynamo_config"),
}
"""What ``accelerate launch`` may say about models in parts, and its keys: other values were not made to
work."""
UNSAID = {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
"""What accelerate takes where nothing is said, if that is none of these."""
UNSHARDED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
"""What it may ask for that would train otherwise than our counts think."""
NOT_SHARDED = ("fp16", "bf16", "gradient_checkpointing", "torch_compile", "activation_checkpointing")
"""Keys of the trainer that were not made to work on models in parts."""
ELEMENTWISE = (None, "adamw_torch", "adamw_torch_fused")
"""Optimizers that do the same to a tensor and to its parts laid end to end, as DeepSpeed keeps them."""


def check_processes(config: ExperimentConfig) -> None:
    """Raise InputError for what cannot be trained in several processes."""
    check_launch()
    world, chosen = ranks.world_size(), config.trainer.arguments()
    if world == 1:
        for key, way in OF_SEVERAL.items():
            check(
                not chosen.get(key),
                f"trainer.{key}={chosen.get(key)} is of several processes, and this run is one. {way}",
            )
        return
    said = f"This run has {world} processes (WORLD_SIZE={world})"
    missing = [
        name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]
    if missing:
        raise InputError(
            f"{said}, but {', '.join(missing)} is not set: start it by torchrun, or unset WORLD_SIZE."
        )
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
            "conf/accelerate/fsdp2.yaml or zero3.yaml, or torchrun for whole models in each process.",
        )
    check(
        not ranks.sharded() or ranks.world_size() > 1,
        f"accelerate launch asks for {_way()} with one process: there is nothing to cut up. Give "
        "--num_processes 2 or more, or start it by python.",
    )


def _way() -> str:
    return "DeepSpeed" if ranks.zero() else "FSDP"


def _check_sharded(config: ExperimentConfig, said: str) -> None:
    """What does not go with models cut up over the processes."""
    if not ranks.sharded():
        return
    settings, file = (ZERO3, "zero3") if ranks.zero() else (FSDP2, "fsdp2")
    for name, (good, key) in (settings | EITHER).items():
        given = os.environ.get(name, UNSAID.get(name, good))
        check(
            given.lower() == good.lower(),
            f"accelerate's config file has {key} {given}; what works is {good}, as in "
            f"conf/accelerate/{file}.yaml.",
        )
    said += f", which share out their models ({_way()})"
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
        f"{said}: leave out model.teacher.quantization, which cannot be cut up.",
    )
    if ranks.zero():
        _check_zero(config, said)


def _check_zero(config: ExperimentConfig, said: str) -> None:
    """What does not go with DeepSpeed."""
    chosen, skipped = config.trainer.arguments(), config.run.max_skipped_steps
    check(
        chosen.get("optim") in ELEMENTWISE,
        f"{said}: trainer.optim={chosen.get('optim')} does not go with that. Take adamw_torch.",
    )
    check(
        not chosen.get("use_cpu"),
        f"{said}: leave out trainer.use_cpu, which leaves DeepSpeed out; without a GPU the CPU is taken.",
    )
    check(
        skipped == 0,
        f"{said}: run.max_skipped_steps={skipped} does not go with that: DeepSpeed takes its step before "
        "anybody sees the gradient. Take 0.",
    )
    check(
        find_spec("deepspeed") is not None,
        f"accelerate launch asks for DeepSpeed, which is not installed: {install('deepspeed')}",
    )
