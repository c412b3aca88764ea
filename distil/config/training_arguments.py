"""Every field of ``transformers.TrainingArguments`` that a user may set. Generated: do not edit.

Rewrite with ``python scripts/generate_trainer_schema.py``. None means "not set": transformers' own default.
Fields that the runner sets itself are in ``distil.config.trainer.OURS`` and not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class TrainingFields:
    """Fields under their own names, in the order of ``transformers.TrainingArguments``."""

    per_device_train_batch_size: int | None = None
    num_train_epochs: float | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    lr_scheduler_type: str | None = None
    lr_scheduler_kwargs: Any = None
    warmup_steps: float | None = None
    optim: str | None = None
    optim_args: str | None = None
    weight_decay: float | None = None
    adam_beta1: float | None = None
    adam_beta2: float | None = None
    adam_epsilon: float | None = None
    optim_target_modules: Any = None
    gradient_accumulation_steps: int | None = None
    max_grad_norm: float | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    tf32: bool | None = None
    activation_checkpointing: bool | None = None
    activation_checkpointing_kwargs: Any = None
    gradient_checkpointing: bool | None = None
    gradient_checkpointing_kwargs: Any = None
    torch_compile: bool | None = None
    torch_compile_backend: str | None = None
    torch_compile_mode: str | None = None
    use_liger_kernel: bool | None = None
    liger_kernel_config: Any = None
    use_cache: bool | None = None
    neftune_noise_alpha: float | None = None
    torch_empty_cache_steps: int | None = None
    auto_find_batch_size: bool | None = None
    logging_strategy: str | None = None
    logging_steps: float | None = None
    logging_first_step: bool | None = None
    log_on_each_node: bool | None = None
    include_num_input_tokens_seen: Any = None
    log_level: str | None = None
    log_level_replica: str | None = None
    eval_strategy: str | None = None
    eval_steps: float | None = None
    eval_delay: float | None = None
    per_device_eval_batch_size: int | None = None
    eval_on_start: bool | None = None
    save_only_model: bool | None = None
    save_strategy: str | None = None
    save_steps: float | None = None
    save_on_each_node: bool | None = None
    save_total_limit: int | None = None
    enable_jit_checkpoint: bool | None = None
    load_best_model_at_end: bool | None = None
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None
    ignore_data_skip: bool | None = None
    restore_callback_states_from_checkpoint: bool | None = None
    full_determinism: bool | None = None
    use_cpu: bool | None = None
    accelerator_config: Any = None
    dataloader_drop_last: bool | None = None
    dataloader_num_workers: int | None = None
    dataloader_pin_memory: bool | None = None
    dataloader_persistent_workers: bool | None = None
    dataloader_prefetch_factor: int | None = None
    dataloader_multiprocessing_context: str | None = None
    dataloader_in_order: bool | None = None
    train_sampling_strategy: str | None = None
    length_column_name: str | None = None
    ddp_find_unused_parameters: bool | None = None
    ddp_bucket_cap_mb: int | None = None
    ddp_broadcast_buffers: bool | None = None
    ddp_static_graph: bool | None = None
    ddp_backend: str | None = None
    ddp_timeout: int | None = None
    fsdp: str | None = None
    fsdp_config: Any = None
    deepspeed: Any = None
    debug: Any = None
    skip_memory_metrics: bool | None = None


CHOICES: dict[str, tuple[str, ...]] = {
    "lr_scheduler_type": (
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "reduce_lr_on_plateau",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
        "greedy",
    ),
    "optim": (
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_torch_xla",
        "adamw_torch_npu_fused",
        "adafactor",
        "adamw_anyprecision",
        "adamw_torch_4bit",
        "adamw_torch_8bit",
        "ademamix",
        "sgd",
        "adagrad",
        "adamw_bnb_8bit",
        "adamw_8bit",
        "ademamix_8bit",
        "lion_8bit",
        "lion_32bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "paged_ademamix_32bit",
        "paged_ademamix_8bit",
        "paged_lion_32bit",
        "paged_lion_8bit",
        "rmsprop",
        "rmsprop_bnb",
        "rmsprop_bnb_8bit",
        "rmsprop_bnb_32bit",
        "galore_adamw",
        "galore_adamw_8bit",
        "galore_adafactor",
        "galore_adamw_layerwise",
        "galore_adamw_8bit_layerwise",
        "galore_adafactor_layerwise",
        "lomo",
        "adalomo",
        "grokadamw",
        "schedule_free_radam",
        "schedule_free_adamw",
        "schedule_free_sgd",
        "apollo_adamw",
        "apollo_adamw_layerwise",
        "stable_adamw",
    ),
    "logging_strategy": ("no", "steps", "epoch"),
    "log_level": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "log_level_replica": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "eval_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch", "best"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "ddp_backend": ("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl"),
}
"""What a field that is a name may be."""
