"""What a training had that no command line says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distil.api.in_hand import changed
from distil.api.inputs import quantised_bits
from distil.api.names import alone
from distil.config.schema import StudentConfig
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distil.api.config import DistillationConfig


def untold_models(
    config: DistillationConfig,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    came: Mapping[str, str],
    *,
    trained: bool,
) -> list[str]:
    """Of the two models. ``came``: keys of ``model.student`` that bring the student, where it was loaded;
    ``trained``: whether it was trained here since."""
    from distil.engine.anatomy import is_adapted

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
    told = [words for words, holds in reasons.items() if holds]
    for role, model, name in named:
        told += _whence(role, model, name, as_loaded=not (trained and role == "student"))
    return told


def _whence(role: str, model: PreTrainedModel, name: str, *, as_loaded: bool) -> list[str]:
    """That the model came from elsewhere than ``name``, or is not what it was there; ``as_loaded``: whether
    it should be."""
    place = str(getattr(model, "name_or_path", "") or "")
    how = changed(model, place) if place and as_loaded else ""
    words = f"its {role} came from {place or 'no folder and no hub name'}"
    words += f", {how}" if how else ""
    if not _same_place(place, name):
        return [f"{words}, not from {role}_model_name={name}"]
    return [f"{words}: save_pretrained before training gives it a folder to name"] if how else []


def _same_place(one: str, other: str) -> bool:
    one, other = _folder(one), _folder(other)
    return one == other or (Path(one).is_dir() and Path(other).is_dir() and Path(one).samefile(other))


def _folder(name: str) -> str:
    """Where the runner finds the model ``name``: ``distil:…`` ships with it."""
    from distil.models.sources import student_source

    if not name:
        return name
    try:
        return student_source(alone(StudentConfig(path=name))).location
    except InputError:  # gone by now
        return name
