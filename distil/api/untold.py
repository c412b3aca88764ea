"""What a training had that no command line says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distil.api.inputs import quantised_bits
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distil.api.config import DistillationConfig


def untold_models(
    config: DistillationConfig, teacher: PreTrainedModel, student: PreTrainedModel, came: Mapping[str, str]
) -> list[str]:
    """Of the two models. ``came``: keys of ``model.student`` that bring the student, where it was loaded."""
    from distil.anatomy import is_adapted

    bits = quantised_bits(student)
    frozen = not all(p.requires_grad for p in student.parameters())
    own = not config.use_peft and is_adapted(student)
    reasons = {
        f"its base was held in {bits} bits under an adapter that is not qlora": bits is not None
        and config.peft_type.lower() != "qlora",
        f"its teacher was held in {quantised_bits(teacher)} bits": quantised_bits(teacher) is not None,
        "the adapter that was trained was the caller's own": own,
        "part of the student was frozen": frozen and not own and not config.use_peft,
    }
    named = [("teacher", teacher, config.teacher_model_name)]
    if "path" not in came:
        named.append(("student", student, config.student_model_name))
    for role, model, name in named:
        place = str(getattr(model, "name_or_path", "") or "")
        said = (
            f"its {role} came from {place or 'no folder and no hub name'}, not from {role}_model_name={name}"
        )
        reasons[said] = not _same_place(place, name)
    return [words for words, holds in reasons.items() if holds]


def _same_place(one: str, other: str) -> bool:
    one, other = _folder(one), _folder(other)
    return one == other or (Path(one).is_dir() and Path(other).is_dir() and Path(one).samefile(other))


def _folder(name: str) -> str:
    """Where the runner finds the model ``name``: ``distil:…`` ships with it."""
    from distil.models.sources import student_source

    if not name:
        return name
    try:
        return student_source(ModelConfig("custom", TeacherConfig(), StudentConfig(path=name))).location
    except InputError:  # gone by now
        return name
