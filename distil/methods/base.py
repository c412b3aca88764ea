"""What a method is: data, not control flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from distil.config.schema import MethodConfig
from distil.losses import Term
from distil.registry import Registry
from distil.types import ROLLOUT, Sequences

C = TypeVar("C", bound=MethodConfig)


class Method(ABC, Generic[C]):
    """An objective: a weighted sum of terms, which may depend on the step.

    From the terms alone the trainer knows whether a teacher is needed, whether the student must generate,
    and what the head has to compute. A method does no I/O and knows no device.
    """

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def terms(self, step: int) -> tuple[Term, ...]:
        """The objective at optimizer step ``step`` (counted from 0). Terms of weight 0 cost nothing."""

    @property
    def needs_teacher(self) -> bool:
        """Whether a term that weighs anything is a divergence from a teacher."""
        return any(term.needs_teacher for term in self.terms(0) if term.weight)

    @property
    def wants_rollouts(self) -> bool:
        """Whether a term that weighs anything scores the student's own sequences."""
        return any(term.sequences is ROLLOUT for term in self.terms(0) if term.weight)

    def asks_teacher_about(self, sequences: Sequences) -> bool:
        """Whether a term that weighs anything is a divergence from a teacher on these sequences."""
        return bool(self.questions(sequences))

    def questions(self, sequences: Sequences) -> list[Term]:
        """The terms that weigh anything and are a divergence from a teacher on these sequences."""
        mine = [term for term in self.terms(0) if term.sequences is sequences]
        return [term for term in mine if term.weight and term.needs_teacher]

    def state_dict(self) -> dict[str, float]:
        """What the method has observed and a resumed run must know. Most methods: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take back what ``state_dict`` gave."""


METHODS: Registry[type[Method[Any]]] = Registry("method", "distil.methods")
register_method = METHODS.register


def method_of(config: MethodConfig) -> Method[MethodConfig]:
    """The method that ``config.name`` names. Raises InputError for an unknown name."""
    return METHODS.get(config.name).factory(config)
