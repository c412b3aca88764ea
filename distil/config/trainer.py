"""The ``trainer`` group: fields of ``transformers.TrainingArguments`` under their own names, checked.

Nothing set means transformers' own default; the runner's defaults are in ``conf/trainer/default.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from distil.config.checks import check, check_choice, is_finite
from distil.config.training_arguments import CHOICES, TrainingFields
from distil.metrics.base import WHILE_TRAINING
from distil.registry import did_you_mean
from distil.types import InputError

_NOT_OURS_TO_PUBLISH = "a run publishes nothing: upload its student/ folder when you have judged it"
_ONE_EVALUATION = "the runner evaluates by itself: see the keys of eval="
_TRACKERS = "choose a tracker: tracker=wandb, tracker=tensorboard, tracker=none"

OURS: dict[str, str] = {
    "output_dir": "use output_dir= (the parent of all runs) and name=",
    "seed": "use seed=",
    "data_seed": "use seed=: the order of the rows follows from it",
    "report_to": _TRACKERS,
    "run_name": "use name= and the keys of tracker=",
    "project": "use tracker.project=",
    "trackio_space_id": _TRACKERS,
    "trackio_bucket_id": _TRACKERS,
    "trackio_static_space_id": _TRACKERS,
    "resume_from_checkpoint": "the same command goes on by itself; run.resume=false starts afresh",
    "push_to_hub": _NOT_OURS_TO_PUBLISH,
    "hub_token": _NOT_OURS_TO_PUBLISH,
    "hub_private_repo": _NOT_OURS_TO_PUBLISH,
    "hub_model_id": _NOT_OURS_TO_PUBLISH,
    "hub_strategy": _NOT_OURS_TO_PUBLISH,
    "hub_always_push": _NOT_OURS_TO_PUBLISH,
    "hub_revision": _NOT_OURS_TO_PUBLISH,
    "do_train": "a run always trains, and then evaluates",
    "do_eval": _ONE_EVALUATION,
    "do_predict": _ONE_EVALUATION,
    "prediction_loss_only": _ONE_EVALUATION,
    "include_for_metrics": _ONE_EVALUATION,
    "batch_eval_metrics": _ONE_EVALUATION,
    "eval_do_concat_batches": _ONE_EVALUATION,
    "eval_use_gather_object": _ONE_EVALUATION,
    "eval_accumulation_steps": _ONE_EVALUATION,
    "bf16_full_eval": _ONE_EVALUATION,
    "fp16_full_eval": _ONE_EVALUATION,
    "label_smoothing_factor": "the loss is the method's: see the keys of method=",
    "average_tokens_across_devices": "scored tokens are always counted over all processes",
    "remove_unused_columns": "the runner needs its own columns: rows keep all of them",
    "label_names": "the runner's rows have labels",
    "parallelism_config": "models are cut up by FSDP or DeepSpeed alone: see conf/accelerate",
    "local_rank": "torchrun sets it for each of its processes",
    "disable_tqdm": "the runner has a progress bar of its own in terminals, and plain lines elsewhere",
    "logging_nan_inf_filter": "a loss that is NaN stops the run, with its step and its rows",
}
"""Fields that the runner sets itself, and what a user gives instead."""

USUAL_BATCH = 8
"""Of transformers, where ``per_device_train_batch_size`` is not given."""

AFTER_TRAINING = {
    "nll": "nll_per_token",
    "perplexity": "nll_per_token",
    "kl_to_teacher": "kl_per_token",
    "agreement": "top1_agreement",
}
"""What the evaluation after training calls the scalars of that during it."""

OPTIMIZERS = {
    "adamw_torch_xla": "torch_xla",
    "adamw_torch_npu_fused": "torch_npu",
    "adamw_anyprecision": "torchdistx",
    "adamw_torch_?bit": "torchao",
    "galore_*": "galore_torch",
    "apollo_*": "apollo_torch",
    "schedule_free_*": "schedulefree",
    "*lomo": "lomo_optim",
    "grokadamw": "grokadamw",
    "stable_adamw": "optimi",
    "ademamix": "bitsandbytes",
    "*_bnb": "bitsandbytes",
    "*_8bit": "bitsandbytes",
    "*_32bit": "bitsandbytes",
}
"""The package that transformers imports for an ``optim`` (patterns, the first counts)."""

_OF_WORKERS = (
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
)
_ABOVE_0 = ("num_train_epochs", "learning_rate", "adam_epsilon", "logging_steps", "eval_steps", "save_steps")
_AT_LEAST_0 = (
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "dataloader_num_workers",
    "neftune_noise_alpha",
)
_AT_LEAST_1 = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "save_total_limit",
)


@dataclass
class TrainerConfig(TrainingFields):
    """Fields of ``transformers.TrainingArguments``, and only those."""

    def __post_init__(self) -> None:
        for key in _ABOVE_0:
            self._check_range(key, lambda value: value > 0, "must be above 0")
        for key in _AT_LEAST_0:
            self._check_range(key, lambda value: value >= 0, "must be at least 0")
        for key in _AT_LEAST_1:
            self._check_range(key, lambda value: value >= 1, "must be at least 1")
        for key in ("adam_beta1", "adam_beta2"):
            self._check_range(key, lambda value: 0 <= value < 1, "must lie in [0, 1)")
        self._check_range(
            "max_steps",
            lambda value: value == -1 or value >= 1,
            "must be at least 1, or -1 (trainer.num_train_epochs counts then)",
        )
        for key, choices in CHOICES.items():
            if (value := getattr(self, key)) is not None:
                check_choice(f"trainer.{key}", value, choices)
        if (best := self.metric_for_best_model) is not None and self.best_by not in WHILE_TRAINING:
            known = ("loss", *WHILE_TRAINING)
            meant = AFTER_TRAINING.get(self.best_by) or self.best_by
            raise InputError(
                f"trainer.metric_for_best_model={best} is unknown.{did_you_mean(meant, known)} Known, of the "
                f"evaluation during training: {', '.join(known)}."
            )
        self._check_pairs()

    def with_less_memory(self) -> str:
        """What to give for the same result in less memory."""
        batch = self.per_device_train_batch_size or USUAL_BATCH
        if batch == 1:
            return (
                "trainer.per_device_train_batch_size is 1 already. Shorter rows (data.max_length), "
                "trainer.gradient_checkpointing=true or an adapter (peft=lora, peft=qlora) take less."
            )
        factor = next((n for n in range(2, min(batch, 1000)) if batch % n == 0), batch)  # of a prime: all
        steps = factor * (self.gradient_accumulation_steps or 1)
        return (
            f"trainer.per_device_train_batch_size={batch // factor} "
            f"trainer.gradient_accumulation_steps={steps} gives the same result in less memory."
        )

    def _check_range(self, key: str, holds: Callable[[float], bool], rule: str) -> None:
        value = getattr(self, key)
        if value is not None:
            finite = is_finite(value)
            check(
                finite and holds(value),
                f"trainer.{key} {rule}{'' if finite else ' and finite'}, got {value}.",
            )

    def _check_pairs(self) -> None:
        check(
            not self.auto_find_batch_size,
            "trainer.auto_find_batch_size=true changes the result with the machine. Where memory runs out: "
            f"{self.with_less_memory()}",
        )
        check(
            not (self.bf16 and self.fp16),
            "trainer.bf16=true and trainer.fp16=true exclude each other: set one.",
        )
        check(
            not self.save_only_model,
            "trainer.save_only_model=true leaves out the optimizer: a stopped run would go on from such a "
            "checkpoint to other weights without a word. student/ holds the model alone.",
        )
        check(
            self.greater_is_better in (None, self.more_is_better),
            f"trainer.greater_is_better={str(self.greater_is_better).lower()} with trainer."
            f"metric_for_best_model={self.metric_for_best_model or 'loss'}: the worst student would be the "
            "best. Leave trainer.greater_is_better out.",
        )
        for key in _OF_WORKERS:
            check(
                not getattr(self, key) or bool(self.dataloader_num_workers),
                f"trainer.{key} is of processes that read ahead, and there are none: give "
                "trainer.dataloader_num_workers=1, or more, or leave it out.",
            )
        keeps_best = self.save_strategy == "best"
        best = "save_strategy=best" if keeps_best else "load_best_model_at_end=true"
        check(
            self.eval_strategy != "no" or not (keeps_best or self.load_best_model_at_end),
            f"trainer.{best} goes by the evaluation during training, and trainer.eval_strategy=no makes "
            "none: leave one of them out.",
        )
        check(
            not self.load_best_model_at_end or keeps_best or self.eval_strategy == self.save_strategy,
            "trainer.load_best_model_at_end=true takes the best of what was saved, each after an evaluation: "
            f"trainer.save_strategy={self.save_strategy} does not save so with trainer.eval_strategy="
            f"{self.eval_strategy}. Give trainer.save_strategy={self.eval_strategy} or best.",
        )
        if self.load_best_model_at_end and self.save_strategy == "steps":
            self._check_evaluated_where_saved()

    def _check_evaluated_where_saved(self) -> None:
        """As transformers asks it: of steps, and of shares of the training (below 1)."""
        save, evaluate = self.save_steps, self.eval_steps
        if save is None or evaluate is None:
            return
        shares = save < 1 and evaluate < 1
        scale = 1_000_000 if shares else 1  # as transformers has it: no remainder of binary fractions
        check(
            (save * scale) % (evaluate * scale) == 0,
            "trainer.load_best_model_at_end=true takes the best of what was saved, each after an evaluation: "
            f"trainer.save_steps={save:g} is no multiple of trainer.eval_steps={evaluate:g}. Give "
            f"trainer.eval_steps={save:g}, or trainer.save_strategy=best.",
        )

    @property
    def optimizer_package(self) -> str | None:
        """What ``optim`` needs beside torch and transformers, by the name that is imported; None: nothing."""
        name = self.optim or ""
        return next((package for pattern, package in OPTIMIZERS.items() if fnmatchcase(name, pattern)), None)

    @property
    def ignored(self) -> dict[str, str]:
        """Fields that another one overrules, and how it would not."""
        if (self.max_steps or -1) < 1:
            return {}
        return {"num_train_epochs": f"trainer.max_steps={self.max_steps} counts (-1: epochs do)"}

    @property
    def best_by(self) -> str:
        """What the best student is the best in: a scalar of the evaluation during training."""
        name = (self.metric_for_best_model or "loss").removeprefix("eval_")
        return "nll_per_token" if name == "loss" else name

    @property
    def more_is_better(self) -> bool:
        """Of ``best_by``."""
        return WHILE_TRAINING[self.best_by]

    def arguments(self) -> dict[str, Any]:
        """What was set, as keyword arguments of ``transformers.TrainingArguments``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.save_strategy == "best":
            values["metric_for_best_model"] = self.metric_for_best_model or "loss"
        if (
            values["metric_for_best_model"] is not None
        ):  # of one without "loss", theirs is that more is better
            values["greater_is_better"] = self.more_is_better
        return {name: value for name, value in values.items() if value is not None}
