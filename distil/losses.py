"""What a method is made of: weighted terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distil.types import Sequences

if TYPE_CHECKING:
    from torch import Tensor

    Score = Callable[[Tensor, Tensor], Tensor]
    """Two rows of float32 log-probabilities in, one number a position out: ``divergence(teacher_NV,
    student_NV) -> N``."""


def cross_entropy(targets_N: Tensor, student_NV: Tensor) -> Tensor:
    """Negative log-probability (nats) of each target under the student.

    The one score that asks no teacher: where a divergence gets the teacher's row, it gets the target ids.
    ``student_NV`` are log-probabilities over the student's full vocabulary.
    """
    return -student_NV.gather(-1, targets_N[:, None]).squeeze(-1)


@dataclass(frozen=True)
class Term:
    """One weighted term of an objective: how much, whose sequences, which score.

    Its value is ``weight`` x the mean of ``score`` over the scored tokens of ``sequences`` in the optimizer
    step. ``temperature`` softens both distributions before ``score`` sees them; any T**2 belongs in
    ``weight``.
    """

    weight: float
    sequences: Sequences
    score: Score
    temperature: float = 1.0

    @property
    def needs_teacher(self) -> bool:
        """Whether the score is a divergence from a teacher."""
        return self.score is not cross_entropy

    @property
    def name(self) -> str:
        """For logs: ``forward_kl``, or ``rollout_jsd`` where the sequences are the student's own."""
        score = getattr(self.score, "__name__", type(self.score).__name__)
        return score if self.sequences is Sequences.REFERENCE else f"{self.sequences.value}_{score}"
