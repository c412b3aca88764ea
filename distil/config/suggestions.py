"""What an unknown key may have been meant to be: a synonym, a key beside it or of another group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from distil.config.command_line import APPENDED_GROUPS
from distil.config.trainer import SYNONYMS
from distil.registry import nearest

Schemas = Mapping[str, type[Any]]
"""Dataclasses by their name below ``schema/``: ``method/kd``, ``trainer``, …; ``experiment`` is the root."""

FLAT = {
    "teacher": "model.teacher.path",
    "student": "model.student.path",
    "teacher_model": "model.teacher.path",
    "student_model": "model.student.path",
    "teacher_model_name_or_path": "model.teacher.path",
    "model_name_or_path": "model.student.path",
    "dataset": "data",
    "dataset_name": "data.path",
    "temperature": "method.temperature",
    "alpha": "method.kd_loss_weight",
    "lambda": "method.lambda_gkd",
    "lora_r": "peft.r",
    "lora_rank": "peft.r",
}
"""What programs without groups call keys of several groups."""

PEFT_SYNONYMS = {
    "rank": "r",
    "lora_r": "r",
    "lora_rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "target_modules",
    "lora_target_modules": "target_modules",
    "prompt_length": "num_virtual_tokens",
    "prefix_length": "num_virtual_tokens",
    "load_in_4bit": "bits",
    "load_in_8bit": "bits",
}
"""What other tools call keys of ``peft``."""

DATA_SYNONYMS = {
    "file": "train_file",
    "files": "train_file",
    "train": "train_file",
    "train_path": "train_file",
    "validation": "validation_file",
    "eval": "validation_file",
    "eval_file": "validation_file",
    "val_file": "validation_file",
    "valid_file": "validation_file",
    "dev_file": "validation_file",
    "data_file": "train_file",
    "data_files": "train_file",
    "training_file": "train_file",
    "test": "test_file",
    "split": "validation_fraction",
    "val_fraction": "validation_fraction",
    "val_size": "validation_fraction",
    "test_fraction": "validation_fraction",
    "test_size": "validation_fraction",
    "column": "prompt_column",
    "text": "text_column",
    "input_column": "prompt_column",
    "question_column": "prompt_column",
    "answer_column": "response_column",
    "output_column": "response_column",
    "target_column": "response_column",
    "max_seq_length": "max_length",
    "max_rows": "max_train_rows",
    "max_samples": "max_train_rows",
    "limit": "max_train_rows",
}
"""What other tools call keys of ``data``, and how people shorten them."""

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
    if not group and name in FLAT:
        return [FLAT[name]]
    if group in ("", "trainer") and name in SYNONYMS:
        return [f"trainer.{SYNONYMS[name]}"]
    if group == "peft" and PEFT_SYNONYMS.get(name) in siblings:
        return [f"peft.{PEFT_SYNONYMS[name]}"]
    if group == "data" and name in DATA_SYNONYMS and name not in siblings:
        return [f"data.{DATA_SYNONYMS[name]}"]
    longer = [each for each in siblings if each.endswith(f"_{name}") or each.startswith(f"{name}_")]
    beside = longer[0] if len(longer) == 1 else nearest(name, siblings, cutoff=0.75)
    if beside or 1 < len(longer) <= _FEW:
        return [f"{group}.{each}".lstrip(".") for each in ([beside] if beside else longer)]
    return _elsewhere(name, group, schemas)


def _elsewhere(name: str, group: str, schemas: Schemas) -> list[str]:
    """The same key or a like one of another group, or of other options of this group, named with them."""
    elsewhere: dict[str, dict[str, list[str]]] = {}  # by name, then key: the options of this group with it
    for path, config in [*schemas.items(), *_nested(schemas)]:
        if path == "experiment" and group:  # nobody writes model= below another group
            continue
        for field in fields(config):
            place, _, option = path.partition("/") if path != "experiment" else ("", "", "")
            full = f"{place}.{field.name}".lstrip(".")
            if full != f"{group}.{name}" or option:
                options = elsewhere.setdefault(field.name, {}).setdefault(full, [])
                options += [option] if option and place == group else []
    near = nearest(name, elsewhere, cutoff=0.8)
    places = elsewhere[near] if near else {}
    if own := places.get(f"{group}.{name}"):  # first: a key that others of the same group have
        places = {f"{group}.{name}": own}
    with_options = {
        full: f" (with {group}={_either(options)})" for full, options in places.items() if options
    }
    return [full + with_options.get(full, "") for full in places][:3]


def _either(options: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
