"""A sparse signal: K token ids a position, their true log-probabilities, and the log of all the rest.

Teacher and student are compared over K + 1 outcomes, the last of which is "any other id": a coarser
partition, so that a divergence stays one (never negative, zero for equal rows) and is at most the full one. A
top-k that is renormalised instead pulls the student the wrong way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distil.slopes import LN2, Rows, Slope
from distil.types import InputError

if TYPE_CHECKING:
    from distil.losses import Score


@dataclass(frozen=True, eq=False)
class Sparse:
    """What a teacher says at N positions, in K + 1 numbers each. Probabilities are over the shared ids."""

    ids_NK: Tensor
    """Different ids in a row, the first of them real; -1 fills a row that has fewer."""
    log_probabilities_NK: Tensor
    """Theirs at temperature 1, against all shared ids, never renormalised. What stands at -1 is not read."""
    log_rest: Mapping[float, Tensor]
    """For each temperature T that may be asked: the log of the sum of probability ** (1 / T) over all other
    ids, (N,). It cannot be had from the K ids: whoever stores them stores it. ``-inf``: there is no rest."""

    @classmethod
    def top(cls, logits_NV: Tensor, k: int, temperatures: Sequence[float] = (1.0,)) -> Sparse:
        """The ``k`` likeliest ids of each row of logits (already cut to the shared ids)."""
        log_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)).log_softmax(-1)
        top = log_NV.topk(min(k, log_NV.shape[-1]), -1)
        others_NV = log_NV.scatter(-1, top.indices, -torch.inf)
        return cls(top.indices, top.values, {T: (others_NV / T).logsumexp(-1) for T in temperatures})

    def __getitem__(self, rows: slice) -> Sparse:
        """Some of the positions."""
        rest = {T: rest_N[rows] for T, rest_N in self.log_rest.items()}
        return Sparse(self.ids_NK[rows], self.log_probabilities_NK[rows], rest)

    def outcomes(self, temperature: float) -> Tensor:
        """Log-probabilities of the K ids and the rest, (N, K + 1), softened by ``temperature``."""
        if temperature not in self.log_rest:
            raise InputError(
                f"method.temperature={temperature}, but the teacher's stored signal knows "
                f"{sorted(self.log_rest)}: the rest of a top-k cannot be softened later. Store it at this "
                "temperature too, or use one of these."
            )
        known_NK = (self.log_probabilities_NK / temperature).masked_fill(self.ids_NK < 0, -torch.inf)
        return torch.cat([known_NK, self.log_rest[temperature][:, None]], -1).log_softmax(-1)


def add_slope(
    score: Score, ids_NK: Tensor, teacher_NO: Tensor, student: Rows, weight: float, slope: Slope
) -> Tensor:
    """The value of each position over the K + 1 outcomes; ``weight`` x its slope is added to ``slope``.

    The formula and autograd see K + 1 numbers a position; the rest's share goes to its ids by hand.
    """
    missing_NK = ids_NK < 0
    ids_NK = torch.where(missing_NK, ids_NK[:, :1], ids_NK).long()
    # The rest from its own largest, not as 1 - the others: what is left of a sharp student would vanish.
    others_NV = student.bits_NV.scatter(-1, ids_NK, -torch.inf)
    # No rest (K = V): 2 ** (-inf - the smallest number) is 0, where 2 ** (-inf - -inf) is NaN.
    peak_N1 = others_NV.amax(-1, keepdim=True).clamp_(min=torch.finfo(others_NV.dtype).min)
    total_N1 = others_NV.sub_(peak_N1).exp2_().sum(-1, keepdim=True)
    known_NK = student.bits_NV.gather(-1, ids_NK).masked_fill(missing_NK, -torch.inf)
    outcomes_NO = LN2 * torch.cat([known_NK, peak_N1 + total_N1.log2()], -1)
    with torch.enable_grad():
        leaf_NO = outcomes_NO.requires_grad_()
        value_N = score(teacher_NO.to(leaf_NO.dtype), leaf_NO.log_softmax(-1))
        if not value_N.requires_grad:
            return value_N
        (gradient_NO,) = torch.autograd.grad(value_N.sum(), leaf_NO)
    gradient_NO *= weight
    slope.add(others_NV, gradient_NO[:, -1:] / total_N1.clamp(min=1))
    slope.so_far().scatter_add_(-1, ids_NK, gradient_NO[:, :-1].masked_fill(missing_NK, 0))
    return value_N.detach()
