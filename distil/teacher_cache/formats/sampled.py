"""Ids that the teacher drew, and how often: random-sampling KD (Anshumann et al. 2025, arXiv 2503.16870).

The counts over the number of draws are an unbiased estimate of the teacher's distribution, so the gradient of
KL(teacher || student), which is linear in it, is unbiased. No other divergence is. The *value* is not: it
comes out too high by about as much as a sample's entropy falls short of the teacher's.

The paper draws independently. ``systematic`` draws go through the cumulative distribution in equal steps from
one random start: as unbiased, and each count is within one of its expectation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from distil.config.schema import MethodConfig, TeacherCacheConfig, check, check_choice
from distil.divergences import forward_kl
from distil.teacher_cache.formats.base import CacheFormat, Size, Stored, register_format
from distil.teacher_cache.formats.packing import join_ids, split_ids

if TYPE_CHECKING:
    from torch import Tensor

    from distil.head import Dense, Head
    from distil.losses import Term
    from distil.sparse import Sparse

MOST_SAMPLES = 255
TYPICAL_SHARE = 0.25
"""Of the draws that bring a new id, about (12 of 50 in the paper): for the size that is shown beforehand."""


@dataclass
class SampledConfig(TeacherCacheConfig):
    """Keys of ``teacher_cache=sampled``."""

    name: str = "sampled"
    samples: int = 50
    """Draws at each position."""
    draws: str = "systematic"
    """``systematic``: in equal steps from one random start; ``independent``: as in the paper."""
    temperature: float = MethodConfig.temperature
    """Softens the distribution that is drawn from: the method's own."""
    seed: int = 0
    """Of the draws: not the run's seed, so that all runs share them."""

    def __post_init__(self) -> None:
        check(
            1 <= self.samples <= MOST_SAMPLES,
            f"teacher_cache.samples must lie between 1 and {MOST_SAMPLES}, got {self.samples}.",
        )
        check_choice("teacher_cache.draws", self.draws, ("systematic", "independent"))
        check(
            0 < self.temperature < math.inf,
            f"teacher_cache.temperature must be above 0, got {self.temperature}.",
        )
        check(0 <= self.seed < 2**32, f"teacher_cache.seed must lie in [0, 2**32), got {self.seed}.")


@register_format("sampled", SampledConfig)
class Sampled(CacheFormat[SampledConfig]):
    """A sparse signal without a rest: all that was not drawn counts as never said."""

    smaller = "take fewer teacher_cache.samples"

    def refusal(self, term: Term) -> str | None:
        """Forward KL alone, at the temperature of the draws."""
        if term.score is not forward_kl:
            return (
                f"samples give an unbiased gradient of KL(teacher || student) only, and {term.name} is "
                "another divergence. Give teacher_cache=topk or teacher_cache=hidden, or method=kd"
            )
        if term.temperature != self.config.temperature:
            return (
                f"the samples are drawn at temperature {self.config.temperature:g}, and {term.name} asks for "
                f"{term.temperature:g}. Give teacher_cache.temperature={term.temperature:g}"
            )
        return None

    def bytes_per_token(self, size: Size) -> float:
        """What is typical: how many different ids come out hangs on the teacher."""
        ids = max(1, round(self.config.samples * TYPICAL_SHARE))
        return ids * (3 + (size.vocabulary > 2**16)) + 1

    def encode(self, said: Dense, rows_N: Sequence[int], shared_vocabulary: int) -> dict[str, Tensor]:
        """The draws of a position hang on the seed, its row and its place in it."""
        import torch

        from distil.head import CHUNK

        points_NS = self._points(rows_N)
        parts = []
        for start in range(0, len(said.hidden_NH), CHUNK):
            rows = slice(start, start + CHUNK)
            logits_NV = said.head.logits(said.hidden_NH[rows])[:, :shared_vocabulary]
            parts.append(_counted(logits_NV / self.config.temperature, points_NS[rows].to(logits_NV.device)))
        entries_N, ids_M, counts_M = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        split = split_ids(ids_M[:, None], shared_vocabulary)
        ids = {f"{name[:-3]}_M": kept_M1[:, 0] for name, kept_M1 in split.items()}
        return {"entries_N": entries_N, **ids, "counts_M": counts_M}

    def _points(self, rows_N: Sequence[int]) -> Tensor:
        """Where each draw falls, (N, samples) in [0, 1), rising."""
        import torch

        from distil.engine.rollouts import generator_of

        c, parts = self.config, []
        for row, group in groupby(rows_N):
            count, systematic = len(list(group)), c.draws == "systematic"
            shape = (count, 1 if systematic else c.samples)
            drawn_NS = torch.rand(shape, generator=generator_of(c.seed, row), dtype=torch.float64)
            if systematic:
                drawn_NS = (torch.arange(c.samples, dtype=torch.float64) + drawn_NS) / c.samples
            parts.append(drawn_NS.sort(-1).values)
        return torch.cat(parts)

    def decode(self, stored: Stored, head: Head | None) -> Sparse:
        """Shares of the draws as probabilities at the temperature of the draws."""
        import torch

        from distil.sparse import Sparse

        entries_N, counts_M = stored["entries_N"].long(), stored["counts_M"].float()
        upper = {"upper_NB": stored["upper_M"][:, None]} if "upper_M" in stored else {}
        ids_M1 = join_ids({"ids_NK": stored["ids_M"][:, None], **upper})
        n, width = len(entries_N), int(entries_N.max()) if len(entries_N) else 1
        place_M = torch.arange(len(counts_M), device=counts_M.device)
        row_M = torch.repeat_interleave(torch.arange(n, device=place_M.device), entries_N)
        place_M = place_M - (entries_N.cumsum(0) - entries_N)[row_M]
        ids_NK = torch.full((n, width), -1, dtype=torch.int32, device=place_M.device)
        ids_NK[row_M, place_M] = ids_M1[:, 0]
        T = self.config.temperature
        log_NK = torch.zeros((n, width), device=place_M.device)
        # Sparse softens what it is given: these are softened already.
        log_NK[row_M, place_M] = T * (counts_M / self.config.samples).log()
        never_N = torch.full((n,), -torch.inf, device=place_M.device)
        return Sparse(ids_NK, log_NK, {T: never_N})


def _counted(logits_NV: Tensor, points_NS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Different ids of each row, these ids, and how often each was drawn."""
    import torch

    cumulative_NV = logits_NV.double().softmax(-1).cumsum(-1)
    total_N1 = cumulative_NV[:, -1:]
    # Strictly below the total: rounding must not reach past the last id that has any probability.
    points_NS = torch.minimum(points_NS * total_N1, torch.nextafter(total_N1, torch.zeros_like(total_N1)))
    ids_NS = torch.searchsorted(cumulative_NV, points_NS, right=True)  # rising, as the points are
    fresh_NS = torch.ones_like(ids_NS, dtype=torch.bool)
    fresh_NS[:, 1:] = ids_NS[:, 1:] != ids_NS[:, :-1]
    starts_M = fresh_NS.flatten().nonzero()[:, 0]
    ends_M = torch.cat([starts_M[1:], starts_M.new_tensor([ids_NS.numel()])])
    return fresh_NS.sum(-1).to(torch.uint8), ids_NS[fresh_NS], (ends_M - starts_M).to(torch.uint8)
