"""The fields of ``DistillationConfig``: which are pairs, what values they take, what others call them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Protocol

from distil.api.calls import nearest
from distil.api.errors import ArgumentError, require
from distil.api.unset import Unset, plain


class Flat(Protocol):
    """Of ``DistillationConfig``, what is read by name where it is turned into the runner's config.

    It stands below both, so that neither needs the other's type.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    teacher_model_name: str
    student_model_name: str
    lambda_gkd: float
    per_device_eval_batch_size: int
    max_length: int
    max_new_tokens: int
    output_dir: str
    fp16: bool
    seed: int
    use_peft: bool
    peft_type: str


ALIASES = {"epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}
"""Two names of one value."""

SHARES = ("beta_gkd", "lambda_gkd")
"""Two fields that add up to 1."""

LEFT_TO_METHOD = "left_to_method"
"""Key of ``to_dict`` that lists the fields (``temperature``) which the user left to each method."""


def same(value: Any) -> Any:
    """What an alias says: the value itself."""
    return value


def rest(share: float) -> float:
    """1 - share, without the noise of the last digits."""
    return round(1 - share, 12)


PARTNERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    **{short: (long, same) for short, long in ALIASES.items()},
    **{long: (short, same) for short, long in ALIASES.items()},
    "lambda_gkd": ("beta_gkd", rest),
    "beta_gkd": ("lambda_gkd", rest),
}
"""The field that each of these says, and how."""

LEFT_OPEN = ("temperature", *SHARES, *ALIASES, *ALIASES.values())
"""Fields of which it matters whether somebody chose them: another field, or the method, may say them."""

ELSEWHERE = {
    "alpha": "kd_loss_weight",
    "lr": "learning_rate",
    "lmbda": "lambda_gkd (TRL counts its own the other way round)",
    "max_seq_length": "max_length",
    "evaluation_steps": "eval_steps",
    "evaluation_strategy": "eval_steps, in steps",
    "n_epochs": "num_train_epochs",
}
"""What other libraries and papers call some of the fields."""

ADAPTER_FIELDS = (
    "peft_type",
    "lora_",
    "num_virtual_tokens",
    "prefix_projection",
    "encoder_hidden_size",
    "prompt_tuning_",
    "ia3_",
)
"""How the fields begin that an adapter alone reads."""

_NUMBERS: dict[str, tuple[type, str]] = {"int": (Integral, "a whole number"), "float": (Real, "a number")}
_OTHERS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "True or False"),
    "str": ((str,), "a text"),
    "str | None": ((str, type(None)), "a text or None"),
    "int | None": ((int, type(None)), "a whole number or None"),
    "list[str] | str | None": ((list, tuple, str, type(None)), "a list of module names, a pattern or None"),
}


def check_adapter_field(name: str, value: Any, otherwise: str = " first") -> None:
    """Raise ArgumentError for a field that would be set and not read: no adapter was asked for."""
    require(
        not name.startswith(ADAPTER_FIELDS),
        f"{name}={value!r} says how an adapter is made, but use_peft is not set: all of the student would be "
        f"trained. Give use_peft=True{otherwise}.",
    )


def check_left(names: Any) -> Iterable[str]:
    """``names`` if they are fields that may be left to the method, else ArgumentError."""
    require(
        isinstance(names, (list, tuple)) and all(name == "temperature" for name in names),
        f"{LEFT_TO_METHOD}={names!r}: it lists fields that each method sets itself: ['temperature'] or [].",
    )
    return list(names)


def no_field(name: str, known: Iterable[str]) -> str:
    """That there is no such field, and what was probably meant."""
    from distil.config.training_arguments import TrainingFields

    said = f"DistillationConfig has no field {name!r}."
    if name in ELSEWHERE:
        return f"{said} Did you mean {ELSEWHERE[name]}?"
    if name in {field.name for field in fields(TrainingFields)} | {"report_to"}:
        return f"{said} TrainingArguments has: train(…, training_args=TrainingArguments({name}=…))."
    return f"{said} {nearest(name, list(known))}"


def check_share(name: str, value: float) -> None:
    """Raise ArgumentError unless ``value`` lies in [0, 1]."""
    require(0 <= value <= 1, f"{name} must lie in [0, 1], got {value}.")


def typed(name: str, value: Any, kind: str) -> Any:
    """``value`` if it is of the field's kind (numbers as python's own), else ArgumentError.

    A number that nobody chose stays one in its own field alone: copied to another, somebody chose it.
    """
    if isinstance(value, Unset) and (name in PARTNERS or (name == "temperature" and plain(value) == 2.0)):
        return value
    if kind in _NUMBERS:
        wanted, words = _NUMBERS[kind]
        if isinstance(value, wanted) and not isinstance(value, bool):
            number: Any = value
            return int(number) if kind == "int" else float(number)
    else:
        allowed, words = _OTHERS[kind]
        if kind == "str" and isinstance(value, Path):
            return str(value)
        if isinstance(value, allowed) and not (kind == "int | None" and isinstance(value, bool)):
            return plain(value)
    raise ArgumentError(f"{name}={value!r} is a {type(value).__name__}: give {words}.")
