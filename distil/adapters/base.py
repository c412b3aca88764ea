"""What an adapter is: a way to train a student through few parameters of its own."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from distil.adapters.targets import check_saved, names_of_linear, shown
from distil.config.schema import PeftConfig
from distil.registry import Registry
from distil.system.printable import one_line
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

C = TypeVar("C", bound=PeftConfig)


class Adapter(ABC, Generic[C]):
    """Turns a loaded student into the model that is trained. Nothing heavy is imported before ``wrap``."""

    adapts: ClassVar[bool] = True
    """Whether there is an adapter at all."""
    peft_type: ClassVar[str] = ""
    """PEFT's word for the kind, as ``adapter_config.json`` has it."""
    packages: ClassVar[tuple[str, ...]] = ("peft",)
    """What it needs beside the core; all of them come with ``distil-runner[adapters]``."""
    gradient_checkpointing: ClassVar[bool] = True
    """Whether it trains under gradient checkpointing."""
    usual_rates: ClassVar[tuple[float, float]] = (1e-5, 5e-2)
    """Learning rates between which nobody is warned: wide, for widths from 64 to 8,192."""
    virtual_tokens: ClassVar[bool] = False
    """Whether it learns a prompt: positions before those of the row."""

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def wrap(
        self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """The model to train: its parameters that require a gradient are the trainable ones.

        Draws initial weights from the global generator. Raises InputError for what does not fit ``student``.
        """

    @property
    def keeps_base(self) -> bool:
        """Whether the model with its adapter off is the student as it was loaded, to the bit."""
        return True

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """Keys of ``BitsAndBytesConfig`` by which the student's base is loaded; None: as it is."""
        return None

    @property
    def no_merge(self) -> str | None:
        """Why its weights cannot go into those of the base; None: they can."""
        return None

    @property
    def no_resume(self) -> str | None:
        """Why training cannot start from its saved product, and what to do instead; None: it can."""
        return None

    def odd_rate(self, rate: float | None) -> str | None:
        """A line on a learning rate outside ``usual_rates``; None: it is inside, or not given."""
        slow, fast = self.usual_rates
        if rate is None or slow <= rate <= fast:
            return None
        return (
            f"trainer.learning_rate={rate:g} is unusual with peft={self.config.name}: it learns "
            f"between {slow:g} and {fast:g}."
        )

    def odd_size(self, student: PreTrainedModel) -> str | None:
        """A line on an adapter that is larger than it is of use to ``student``, which is behind it; None: it
        is not."""
        return None

    def shape(self) -> dict[str, Any]:
        """What is known of ``adapter_config.json`` before there is a model."""
        return {"peft_type": self.peft_type, **self.keys()}

    def keys(self, *without: str) -> dict[str, Any]:
        """The config's keys for PEFT's own config class; what is null is left to it."""
        left_out = {"name", *without}
        return {k: v for k, v in asdict(self.config).items() if k not in left_out and v is not None}


def peft_model(student: PreTrainedModel, kind: Callable[..., Any], **keys: Any) -> PreTrainedModel:
    """``get_peft_model(student, kind(**keys))``, with what either refuses as an InputError.

    ``kind``: a config class of PEFT. The base is frozen.
    """
    from peft import get_peft_model

    student.requires_grad_(False)
    check_saved(student, keys.get("modules_to_save"))
    linear = names_of_linear(student)
    try:
        with warnings.catch_warnings():
            # It asks transformers about gradient checkpointing by an old name: nobody's concern here.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            wrapped: PreTrainedModel = get_peft_model(student, kind(task_type="CAUSAL_LM", **keys))
    except (ValueError, TypeError, KeyError, NotImplementedError, re.error) as error:
        text = one_line(error, 400).rstrip(".")
        targets = keys.get("target_modules")
        key = "peft" if targets is None else f"peft.target_modules={shown(targets)}"
        raise InputError(
            f"{key}: {kind.__name__} does not fit {type(student).__name__}: {text}. Its linear "
            f"modules: {', '.join(linear)}."
        ) from error
    return wrapped


ADAPTERS: Registry[type[Adapter[Any]]] = Registry("peft", "distil.adapters")
register_adapter = ADAPTERS.register


def adapter_of(config: PeftConfig) -> Adapter[Any]:
    """The adapter that ``config.name`` names. Raises InputError for an unknown name."""
    return ADAPTERS.get(config.name).factory(config)
