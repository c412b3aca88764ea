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
from distil.slopes import Rows, Scratch, Slope, cross_entropy, slope_of
from distil.sparse import Sparse, add_slope

if TYPE_CHECKING:
    from distil.losses import Score

BLOCK = 2**17
"""Numbers of a block on a CPU: half a megabyte in float32; some six blocks are in use at a time."""


class Logits:
    """One block of logits, and its rows of probabilities at each width and temperature: made once each."""

    def __init__(self, logits_NV: Tensor, scratch: Scratch) -> None:
        self.logits_NV = logits_NV
        self.scratch = scratch
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
            self._rows[width, temperature] = Rows.of(cut_NV, temperature, self._peaks[width], self.scratch)
        return self._rows[width, temperature]


def add_terms(
    student: Logits,
    targets_N: Tensor,
    terms: Sequence[Term],
    teacher: Logits | Sparse | None,
    shared_vocabulary: int,
    slope: Slope,
    by_formula: bool,
) -> Tensor:
    """Each term's unweighted score, (K, N); the slope of their weighted sum is added to ``slope``.

    ``slope`` may lie over the student's logits. ``by_formula``: leave closed forms aside.
    """
    active = [k for k, term in enumerate(terms) if term.weight != 0]
    # All before any slope is written: after that the logits may be gone.
    width_of = {k: shared_vocabulary if terms[k].needs_teacher else None for k in active}
    rows_of = {k: student.rows(width_of[k], terms[k].temperature) for k in active}
    values_KN = student.logits_NV.new_zeros(len(terms), len(student.logits_NV))
    for k in active:
        term, mine = terms[k], rows_of[k]
        # The slope along softened logits is T times that along logits.
        weight = term.weight / term.temperature
        if term.needs_teacher:
            assert teacher is not None
            part = slope.first(shared_vocabulary)
            values_KN[k] = _add_divergence(term, teacher, mine, weight, part, by_formula)
        else:
            values_KN[k] = cross_entropy(targets_N, mine, weight, slope)
    return values_KN


def _add_divergence(
    term: Term, teacher: Logits | Sparse, student: Rows, weight: float, slope: Slope, by_formula: bool
) -> Tensor:
    T, score = term.temperature, term.score
    if isinstance(teacher, Sparse):
        return add_slope(score, teacher.ids_NK, teacher.outcomes(T), student, weight, slope)
    theirs = teacher.rows(student.power_NV.shape[-1], T)
    closed_form = None if by_formula else slope_of(score)
    if closed_form is None:
        return _add_slope_by_formula(score, theirs, student, weight, slope)
    return closed_form(theirs, student, weight, slope)


def _add_slope_by_formula(score: Score, teacher: Rows, student: Rows, weight: float, slope: Slope) -> Tensor:
    with torch.enable_grad():
        leaf_NV = student.log_probabilities().requires_grad_()
        value_N = score(teacher.log_probabilities(), leaf_NV)
        if not value_N.requires_grad:
            return value_N
        (gradient_NV,) = torch.autograd.grad(value_N.sum(), leaf_NV)
    # Through the softmax: g - p sum(g).
    total_N1 = gradient_NV.sum(-1, keepdim=True)
    slope.add(gradient_NV, weight)
    slope.add(student.power_NV, -weight * total_N1 / student.total_N1)
    return value_N.detach()


def blocks(n: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """``n`` positions in blocks that stay in a CPU's cache; elsewhere all at once."""
    step = max(1, BLOCK // vocabulary) if device.type == "cpu" else max(1, n)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
