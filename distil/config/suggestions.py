"""What an unknown key may have been meant to be: a synonym, a key beside it or of another group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_type_hints

from distil.config.command_line import APPENDED_GROUPS
from distil.registry import nearest

Schemas = Mapping[str, type[Any]]
"""Dataclasses by their name below ``schema/``: ``method/kd``, ``trainer``, …; ``experiment`` is the root."""

_OF_TRAINER = {
    "accumulation_steps": "gradient_accumulation_steps",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "eval_batch_size": "per_device_eval_batch_size",
    "evaluation_strategy": "eval_strategy",
    "grad_accum": "gradient_accumulation_steps",
    "grad_clip": "max_grad_norm",
    "lr": "learning_rate",
    "num_epochs": "num_train_epochs",
    "num_workers": "dataloader_num_workers",
    "optimizer": "optim",
    "precision": "bf16",
    "scheduler": "lr_scheduler_type",
    "steps": "max_steps",
    "train_batch_size": "per_device_train_batch_size",
    "warmup_ratio": "warmup_steps",
}
"""Of ``TrainingArguments`` (a warmup_steps below 1 is a ratio)."""

SYNONYMS = {
    "": {short: f"trainer.{key}" for short, key in _OF_TRAINER.items()}
    | {
        "T": "method.temperature",
        "alpha": "method.kd_loss_weight",
        "beta": "method.mixture_weight",
        "dataset": "data",
        "dataset_name": "data.path",
        "entity": "tracker.entity",
        "exp_name": "name",
        "experiment_name": "name",
        "lambda": "method.lambda_gkd",
        "logger": "tracker",
        "lora_r": "peft.r",
        "lora_rank": "peft.r",
        "model_name_or_path": "model.student.path",
        "outputs": "output_dir",
        "random_seed": "seed",
        "save_dir": "output_dir",
        "student": "model.student.path",
        "student_model": "model.student.path",
        "tau": "method.temperature",
        "teacher": "model.teacher.path",
        "teacher_model": "model.teacher.path",
        "teacher_model_name_or_path": "model.teacher.path",
        "temperature": "method.temperature",
        "wandb": "tracker",
        "wandb_entity": "tracker.entity",
        "wandb_project": "tracker.project",
        "workers": "trainer.dataloader_num_workers",
    },
    "trainer": _OF_TRAINER,
    "method": {
        "T": "temperature",
        "alpha": "kd_loss_weight",
        "beta": "mixture_weight",
        "kd_alpha": "kd_loss_weight",
        "kd_weight": "kd_loss_weight",
        "lambda": "lambda_gkd",
        "tau": "temperature",
        "temp": "temperature",
    },
    "model": {"name_or_path": "model.student.path"},
    "model.teacher": {"load_in_4bit": "quantization", "load_in_8bit": "quantization", "bits": "quantization"},
    "model.student": {"num_layers": "keep_layers", "num_hidden_layers": "keep_layers"},
    "peft": {
        "alpha": "lora_alpha",
        "dropout": "lora_dropout",
        "load_in_4bit": "bits",
        "load_in_8bit": "bits",
        "lora_r": "r",
        "lora_rank": "r",
        "lora_target_modules": "target_modules",
        "prefix_length": "num_virtual_tokens",
        "prompt_length": "num_virtual_tokens",
        "rank": "r",
        "targets": "target_modules",
    },
    "data": {
        "answer_column": "response_column",
        "column": "prompt_column",
        "data_file": "train_file",
        "data_files": "train_file",
        "dev_file": "validation_file",
        "eval": "validation_file",
        "eval_file": "validation_file",
        "file": "train_file",
        "files": "train_file",
        "input_column": "prompt_column",
        "limit": "max_train_rows",
        "max_rows": "max_train_rows",
        "max_samples": "max_train_rows",
        "max_seq_length": "max_length",
        "output_column": "response_column",
        "question_column": "prompt_column",
        "seed": "split_seed",
        "split": "validation_fraction",
        "target_column": "response_column",
        "test": "test_file",
        "test_fraction": "validation_fraction",
        "test_size": "validation_fraction",
        "text": "text_column",
        "train": "train_file",
        "train_path": "train_file",
        "training_file": "train_file",
        "val_file": "validation_file",
        "val_fraction": "validation_fraction",
        "val_size": "validation_fraction",
        "valid_file": "validation_file",
        "validation": "validation_file",
    },
    "eval": {
        "limit": "data.max_eval_rows",
        "max_rows": "data.max_eval_rows",
        "max_samples": "data.max_eval_rows",
        "rows": "data.max_eval_rows",
    },
    "tracker": {"entity_name": "entity", "project_name": "project"},
}
"""Below each group (none: ``""``) what other tools call a key, and how people shorten it: the key there, or
with its group the key of another."""

_DEVICES = (
    "A run takes the first GPU there is, else the CPU. Before the command CUDA_VISIBLE_DEVICES=1 chooses "
    "another and torchrun --nproc_per_node=2 takes several; trainer.use_cpu=true takes none"
)
_BITS = (
    "peft=qlora holds a student in 4 bits under its adapter (peft.bits=8: in 8), "
    "model.teacher.quantization=nf4 (or int8) the teacher"
)
_LMBDA = (
    "That of TRL is the share of the student's own answers; method.lambda_gkd, with method=gkd, is that of "
    "the data set's: 1 - lmbda"
)
_OFFLINE = "W&B is online where it can be; WANDB_MODE=offline before the command records on this machine"
_LOOK = "--cfg job shows what would run"
NO_KEY = {
    **dict.fromkeys(("device", "gpus", "n_gpu", "num_gpus", "trainer.device", "run.device"), _DEVICES),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _BITS),
    **dict.fromkeys(
        (f"model.student.{key}" for key in ("load_in_4bit", "load_in_8bit", "quantization")), _BITS
    ),
    **dict.fromkeys(("lmbda", "method.lmbda"), _LMBDA),
    **dict.fromkeys(("tracker.mode", "wandb.mode", "wandb_mode"), _OFFLINE),
    **dict.fromkeys(("check", "dry_run", "dryrun"), _LOOK),
}
"""What people look for among the keys and is said in another way."""

_FEW = 4
"""Keys of which each may have been meant: more say nothing."""


def root_keys(schemas: Schemas) -> list[str]:
    """What may stand first on the command line: keys without a group, and groups."""
    return sorted([*(field.name for field in fields(schemas["experiment"])), *APPENDED_GROUPS])


def keys_of(owner: str, schemas: Schemas) -> list[str]:
    """Keys to choose from: the name of an option is chosen as the option of a group."""
    for config in [*schemas.values(), *(nested for _, nested in _nested(schemas))]:
        if config.__name__ == owner:
            return sorted(field.name for field in fields(config) if field.name != "name")
    return []


def is_group(field: Field[Any]) -> bool:
    """Whether a field of the whole config is a group of keys."""
    return str(field.type).endswith("Config")


def _nested(schemas: Schemas) -> list[tuple[str, type[Any]]]:
    """Dataclasses inside dataclasses with the path they stand at: ``model.teacher``, …"""
    found = []
    for path, config in schemas.items():
        if path != "experiment":
            hints = get_type_hints(config)
            found += [(f"{path}.{name}", hint) for name, hint in hints.items() if is_dataclass(hint)]
    return [(path, hint) for path, hint in found if isinstance(hint, type)]


def suggestions(name: str, group: str, siblings: Sequence[str], schemas: Schemas) -> list[str]:
    """What ``name`` may have been meant to be: a key beside it, or the same or a like key elsewhere."""
    if "/" in name:  # as in Hydra's own groups
        return [name.replace("/", ".")] if name.partition("/")[0] in siblings else []
    if (known := SYNONYMS.get(group, {}).get(name)) and name not in siblings:
        if "." in known:
            return [known + _chosen_by(known, schemas)]
        if known in siblings or group == "data":  # rows of one's own choose data=jsonl by themselves
            return [f"{group}.{known}".lstrip(".")]
        return _elsewhere(known, group, schemas)
    longer = [each for each in siblings if each.endswith(f"_{name}") or each.startswith(f"{name}_")]
    beside = longer[0] if len(longer) == 1 else nearest(name, siblings, cutoff=0.75)
    if beside or 1 < len(longer) <= _FEW:
        return [f"{group}.{each}".lstrip(".") for each in ([beside] if beside else longer)]
    return _elsewhere(name, group, schemas)


def _chosen_by(path: str, schemas: Schemas) -> str:
    """`` (with method=gkd)``, where some options of its group have the key ``path``, and others have not."""
    group, _, name = path.partition(".")
    options = {option: kind for option, kind in schemas.items() if option.startswith(f"{group}/")}
    having = [option for option, kind in options.items() if name in (each.name for each in fields(kind))]
    names = [option.partition("/")[2] for option in having]
    return f" (with {group}={_either(names)})" if names and len(names) < len(options) else ""


def _elsewhere(name: str, group: str, schemas: Schemas) -> list[str]:
    """The same key or a like one of another group, or of other options of this group, named with them."""
    elsewhere: dict[str, dict[str, list[str]]] = {}  # by name, then key: the options of this group with it
    for path, config in [*schemas.items(), *_nested(schemas)]:
        for field in fields(config):
            if group and path == "experiment" and is_group(field):  # nobody writes model= below another group
                continue
            if path != "experiment" and field.name == "name":  # which is chosen as group=name
                continue
            place, _, option = path.partition("/") if path != "experiment" else ("", "", "")
            full = f"{place}.{field.name}".lstrip(".")
            if full != f"{group}.{name}" or option:
                options = elsewhere.setdefault(field.name, {}).setdefault(full, [])
                options += [option] if option and place == group else []
    near = nearest(name, elsewhere, cutoff=0.8)
    places = elsewhere[near] if near else {}
    if own := places.get(f"{group}.{name}"):  # first: a key that others of the same group have
        places = {f"{group}.{name}": own}
    elif group:  # those further down in this group are nearer than others'
        places = {full: options for full, options in places.items() if full.startswith(f"{group}.")} or places
    with_options = {
        full: f" (with {group}={_either(options)})" for full, options in places.items() if options
    }
    return [full + with_options.get(full, "") for full in places][:3]


def _either(options: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
