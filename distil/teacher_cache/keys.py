"""What a cache hangs on: the teacher's weights and how it runs, the tokenizer, the rows, the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.adapters.base import adapter_of
from distil.identity import fingerprint_path
from distil.models.quantize import resolved
from distil.models.sources import Source, student_source, teacher_source

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from distil.config.schema import ExperimentConfig
    from distil.models import LoadedStudent
    from distil.teacher_cache.formats.base import CacheFormat

VERSION = 1
"""Of what is written. Caches of another version are not found, and built again."""
LENGTH = 12
"""Hex digits of a key."""


def key_of(ingredients: Mapping[str, Any]) -> str:
    """Twelve hex digits that are equal exactly where all ingredients (JSON) are."""
    text = json.dumps({"version": VERSION, **ingredients}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def teacher_print(
    config: ExperimentConfig, student: LoadedStudent, autocast: torch.dtype | None
) -> dict[str, Any]:
    """The teacher: its weights by what is in their files, and all that changes its numbers.

    ``autocast``: the dtype of mixed precision that it runs under, None: that of its weights.
    """
    teacher = config.model.teacher
    if teacher.is_self:  # what is under the adapter, made as the config says
        of_student = asdict(config.model.student) | {"adapter": None, "path": None, "device_map": None}
        made = {
            "weights": _weights(student_source(config.model)),
            "student": of_student | {"keep_layers": student.kept_layers},
            "seed": config.seed if config.model.student.init == "random" else None,
            "peft": _held(config) if student.base_print.endswith("packed") else None,
        }
    else:
        source = teacher_source(config.model)
        assert source is not None, "no teacher"
        made = {"weights": _weights(source)}
        made |= {key: getattr(teacher, key) for key in ("dtype", "quantization", "attn_implementation")}
    return made | {"autocast": None if autocast is None else str(autocast).removeprefix("torch.")}


def student_print(config: ExperimentConfig, student: LoadedStudent) -> dict[str, Any]:
    """The student before it is trained: what it is made from, and how."""
    made = config.model.student
    adapted = config.peft.name != "none"
    return {
        "weights": _weights(student_source(config.model)),
        "student": asdict(made) | {"path": None, "keep_layers": student.kept_layers, "device_map": None},
        "adapter": None if made.adapter is None else fingerprint_path(Path(made.adapter).expanduser()),
        "peft": asdict(config.peft),
        "seed": config.seed if adapted or made.init == "random" else None,
    }


def _held(config: ExperimentConfig) -> dict[str, Any]:
    """How a base of few bits is held, and by whom."""
    keys = adapter_of(config.peft).quantization
    held = None if keys is None else resolved(keys, config.model.student.dtype)
    return {"name": config.peft.name, "quantization": held}


def _weights(source: Source) -> list[str | None]:
    """Of a folder the contents; of a hub model the commit that is in the cache, which never changes."""
    if source.folder is not None:
        return [fingerprint_path(source.folder), source.gguf_file]
    config = source.file("config.json") or source.file(str(source.gguf_file))
    return [source.name, source.revision if config is None else config.parent.name, source.gguf_file]


def tokenizer_print(tokenizer: PreTrainedTokenizerBase) -> str:
    """Sixteen hex digits of every token and its id."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]


def ingredients(
    teacher: Mapping[str, Any],
    tokenizer: str,
    rows: str,
    kept: CacheFormat[Any],
    shared_vocabulary: int,
) -> dict[str, Any]:
    """All that one cache hangs on."""
    return {
        "teacher": dict(teacher),
        "tokenizer": tokenizer,
        "rows": rows,
        "format": kept.settings(),
        "shared_vocabulary": shared_vocabulary if kept.cuts_vocabulary else None,
    }
