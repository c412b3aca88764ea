"""Bad input to the library: what the engine says about a run's keys, in the words of the library's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from distil.types import InputError, RunFailed


class ArgumentError(InputError, ValueError):
    """Bad input to a call of the library: names the argument, its value and the way out.

    A ValueError. Where a call does not take an argument, or lacks one, it is a TypeError too.
    """


WORDS = {
    "method.temperature": "temperature",
    "method.kd_loss_weight": "kd_loss_weight",
    "method.lambda_gkd": "lambda_gkd",
    "rollouts.max_new_tokens": "max_new_tokens",
    "data.max_length": "max_length",
    "data.prompt_column": "a column prompt",
    "data.response_column": "a column response",
    "eval.batch_size": "per_device_eval_batch_size",
    "model.teacher.path": "teacher_model_name",
    "model.student.path": "student_model_name",
    "peft.r": "lora_r",
    "peft.bias": "lora_bias",
}
"""Keys of a run and the fields of ``DistillationConfig`` that stand for them, where the last word differs or
the group says nothing. Other keys of ``trainer`` and ``peft`` lose their group."""

_MODULES = {"target_modules", "feedforward_modules"}


def in_words(message: str, peft_type: str = "lora") -> str:
    """``message`` with the keys of a run replaced by the library's names."""
    prefix = "ia3" if peft_type == "ia3" else "lora"

    def own(match: re.Match[str]) -> str:
        key = match[0]
        if key in WORDS:
            return WORDS[key]
        group, _, name = key.rpartition(".")
        if group == "peft" and name in _MODULES:
            return f"{prefix}_{name}"
        return name if group in ("peft", "trainer") else key

    message = re.sub(r"\b(?:method|rollouts|data|eval|model\.teacher|model\.student|peft|trainer)\.\w+", own,
                     message)  # fmt: skip
    message = re.sub(
        r"(=|\bor |\bto |\bquantization )null\b|\bnull(?= chooses| keeps)",
        lambda match: f"{match[1] or ''}None",
        message,
    )
    message = message.replace("run.resume=false", "resume_from_checkpoint=None")
    return re.sub(r"\bpeft=(?=\w)", "peft_type=", message).replace("peft= makes", "peft_type makes")


@contextmanager
def library_words(peft_type: str = "lora") -> Iterator[None]:
    """Raise what the engine calls bad input as ArgumentError, in the library's words."""
    try:
        yield
    except ArgumentError:
        raise
    except InputError as error:
        raise ArgumentError(in_words(str(error), peft_type)) from error
    except RunFailed as error:
        raise RunFailed(in_words(str(error), peft_type)) from error


def require(holds: bool, message: str) -> None:
    """Raise ArgumentError(message) unless ``holds``."""
    if not holds:
        raise ArgumentError(message)
