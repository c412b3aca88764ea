"""Which modules of a student an adapter sits on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"
"""PEFT's word for every linear module but the output head."""

SHOWN = 12


def check_names(key: str, value: Any) -> None:
    """Raise InputError unless ``value`` is null, a word (a pattern, all-linear), or a list of names."""
    names = isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value)
    if not (value is None or (isinstance(value, str) and value) or names):
        raise InputError(
            f"{key}={value}: give module names such as [q_proj,v_proj], a pattern, {ALL_LINEAR}, or null."
        )
    if isinstance(value, str) and re.fullmatch(r"[\w.]+(\s*,\s*[\w.]+)+", value):
        listed = re.sub(r"\s", "", value)
        raise InputError(f"{key}={value}: several names are a list, [{listed}].")


def family(student: PreTrainedModel) -> str:
    """The model type by which PEFT knows its default targets (``llama``, ``gpt2``, …)."""
    return str(student.config.get_text_config().model_type)


def resolve(student: PreTrainedModel, chosen: Any, known: Mapping[str, Any]) -> Any:
    """The targets: those ``chosen``, else PEFT's own for the family, else every linear module but the head.

    Raises InputError, listing what there is, where the chosen ones match nothing.
    """
    if chosen is None:
        return known.get(family(student), ALL_LINEAR)
    if chosen != ALL_LINEAR:
        others = f" null chooses by family, {ALL_LINEAR} takes all but the head."
        check_there(student, "peft.target_modules", chosen, others)
    return list(chosen) if isinstance(chosen, (list, tuple)) else chosen


def check_there(student: PreTrainedModel, key: str, chosen: str | Sequence[str], others: str = "") -> None:
    """Raise InputError for names (or a pattern) that no module has; ``others``: what else ``key`` may be."""
    homeless = _homeless(student, key, chosen)
    if homeless:
        there = ", ".join(names_of_linear(student)[:SHOWN])
        lost = "" if isinstance(chosen, str) or len(homeless) == len(chosen) else f"{', '.join(homeless)} "
        raise InputError(
            f"{key}={shown(chosen)}: {lost}matches no module of {type(student).__name__}. "
            f"Its linear modules: {there}.{others}"
        )


def check_saved(student: PreTrainedModel, chosen: Sequence[str] | None) -> None:
    """Raise InputError for a name in ``modules_to_save`` that no module has, which PEFT passes over."""
    names = [name for name, _ in student.named_modules()]
    for wanted in chosen or ():
        if not any(name.endswith(wanted) for name in names):
            there = dict.fromkeys(name.rpartition(".")[2] for name in names)
            words = ", ".join(name for name in there if name and not name.isdigit())
            raise InputError(
                f"peft.modules_to_save={shown(chosen)}: {type(student).__name__} has no module {wanted}. "
                f"Its modules: {words}."
            )


def names_of_linear(student: PreTrainedModel) -> list[str]:
    """Last names of the linear modules (Conv1D and quantised ones too), each once, the head left out."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = student.get_output_embeddings()  # type: ignore[no-untyped-call]  # theirs has no types
    found = [
        name.rpartition(".")[2]
        for name, module in student.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    ]
    return list(dict.fromkeys(found))


def has_conv1d(student: PreTrainedModel) -> bool:
    """Whether its weights lie transposed (GPT-2): PEFT wants to be told."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in student.modules())


def check_patterns(student: PreTrainedModel, key: str, patterns: Mapping[str, Any] | None) -> None:
    """Raise InputError for one of ``patterns`` that no module has, which PEFT passes over."""
    names = [name for name, _ in student.named_modules() if name]
    for pattern in patterns or ():
        try:
            # As PEFT reads it.
            found = any(re.match(rf"(.*\.)?({pattern})$", name) for name in names)
        except re.error as error:
            raise InputError(f"{key}: {pattern} is no pattern: {error}.") from error
        if not found:
            raise InputError(
                f"{key}: {pattern} matches no module of {type(student).__name__}. Its linear modules: "
                f"{', '.join(names_of_linear(student)[:SHOWN])}."
            )


def _homeless(student: PreTrainedModel, key: str, chosen: str | Sequence[str]) -> list[str]:
    """Those among ``chosen`` that match no module."""
    names = [name for name, _ in student.named_modules() if name]
    if isinstance(chosen, str):
        try:
            return [] if any(re.fullmatch(chosen, name) for name in names) else [chosen]
        except re.error as error:
            raise InputError(f"{key}={chosen} is no pattern: {error}.") from error
    return [word for word in chosen if not any(f".{name}".endswith(f".{word}") for name in names)]


def shown(chosen: Any) -> str:
    """Targets as a user writes them."""
    return chosen if isinstance(chosen, str) else f"[{','.join(sorted(chosen))}]"
