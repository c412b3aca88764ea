"""What an adapter is: a way to train a student through few parameters of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from distil.config.schema import PeftConfig
from distil.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

C = TypeVar("C", bound=PeftConfig)


class Adapter(ABC, Generic[C]):
    """Turns a loaded student into the model that is trained. Nothing heavy is imported before ``wrap``."""

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def wrap(self, student: PreTrainedModel) -> PreTrainedModel:
        """The model to train: its parameters that require a gradient are the trainable ones."""


ADAPTERS: Registry[type[Adapter]] = Registry("peft", "distil.adapters")  # type: ignore[type-arg]  # any config
register_adapter = ADAPTERS.register
