"""All terms of an objective and their slope along the student's logits, from logits that are at hand.

Few rows at a time on a CPU, so that some twenty passes over them read the cache and not memory. Everything is
float32 at least. A built-in divergence brings its slope in closed form; any other is asked by its formula,
and so is every one where logits are infinite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distil.losses import Term
from distil.slopes import Rows, cross_entropy, slope_of
from distil.sparse import Sparse, add_slope

if TYPE_CHECKING:
    from distil.losses import Score

BLOCK = 2**17
"""Numbers of a block on a CPU: half a megabyte in float32; some six blocks are in use at a time."""


class Logits:
    """One block of logits, and its rows of probabilities at each width and temperature: made once each."""

    def __init__(self, logits_NV: Tensor) -> None:
        self.logits_NV = logits_NV
        self._peaks: dict[int, Tensor] = {}
        self._rows: dict[tuple[int, float], Rows] = {}

    def rows(self, width: int | None, temperature: float) -> Rows:
        """Over the first ``width`` ids (None: all), softened by ``temperature``."""
        size = self.logits_NV.shape[-1]
        width = size if width is None else width
        assert width <= size, f"{width} shared ids, but only {size} logits"
        if (width, temperature) not in self._rows:
            cut_NV = self.logits_NV[:, :width]
            if width not in self._peaks:
                self._peaks[width] = cut_NV.amax(-1, keepdim=True)
            self._rows[width, temperature] = Rows.of(cut_NV, temperature, self._peaks[width])
        return self._rows[width, temperature]


def values_and_slope(
    student: Logits,
    targets_N: Tensor,
    terms: Sequence[Term],
    teacher: Logits | Sparse | None,
    shared_vocabulary: int,
    by_formula: bool,
) -> tuple[Tensor, Tensor]:
    """``(values_KN, slope_NV)``: each term's unweighted score, and the slope of their weighted sum.

    ``by_formula``: leave closed forms aside.
    """
    logits_NV = student.logits_NV
    slope_NV = torch.zeros_like(logits_NV)
    values_KN = logits_NV.new_zeros(len(terms), len(logits_NV))
    for value_N, term in zip(values_KN, terms, strict=True):
        if term.weight == 0:
            continue
        T, score = term.temperature, term.score
        weight = term.weight / T  # The slope along softened logits is T times that along logits.
        if not term.needs_teacher:
            value_N.copy_(cross_entropy(targets_N, student.rows(None, T), weight, slope_NV))
            continue
        assert teacher is not None
        mine, part_NV = student.rows(shared_vocabulary, T), slope_NV[:, :shared_vocabulary]
        if isinstance(teacher, Sparse):
            value_N.copy_(add_slope(score, teacher.ids_NK, teacher.outcomes(T), mine, weight, part_NV))
            continue
        theirs, slope = teacher.rows(shared_vocabulary, T), None if by_formula else slope_of(score)
        if slope is None:
            value_N.copy_(_add_slope_by_formula(score, theirs, mine, weight, part_NV))
        else:
            value_N.copy_(slope(theirs, mine, weight, part_NV))
    return values_KN, slope_NV


def _add_slope_by_formula(
    score: Score, teacher: Rows, student: Rows, weight: float, slope_NV: Tensor
) -> Tensor:
    with torch.enable_grad():
        leaf_NV = student.log_probabilities().requires_grad_()
        value_N = score(teacher.log_probabilities(), leaf_NV)
        if not value_N.requires_grad:
            return value_N
        (gradient_NV,) = torch.autograd.grad(value_N.sum(), leaf_NV)
    # Through the softmax: g - p sum(g).
    total_N1 = gradient_NV.sum(-1, keepdim=True)
    slope_NV.add_(gradient_NV, alpha=weight).addcmul_(student.power_NV, -weight * total_N1 / student.total_N1)
    return value_N.detach()


def blocks(n: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """``n`` positions in blocks that stay in a CPU's cache; elsewhere all at once."""
    step = max(1, BLOCK // vocabulary) if device.type == "cpu" else max(1, n)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
