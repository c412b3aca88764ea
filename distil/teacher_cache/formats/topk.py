"""The teacher's K likeliest ids with their true log-probabilities, and one number for all the rest.

Log-probabilities are against the full logsumexp, and nothing is renormalised: K ids and "any other" are a
coarser partition, on which every divergence stays one. About three bytes an id: K falling log-probabilities
are told by the gaps between them, one byte each, on a scale that is fine where gaps are small; each gap is
counted from where the ones before it came out, so that rounding does not add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from distil.config.schema import TeacherCacheConfig, check
from distil.divergences import forward_kl
from distil.teacher_cache.formats.base import CacheFormat, Size, Stored, register_format
from distil.teacher_cache.formats.hidden import Hidden, HiddenConfig
from distil.teacher_cache.formats.packing import join_ids, split_ids, upper_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from distil.head import Dense, Head
    from distil.losses import Term
    from distil.sparse import Sparse

STEPS = 255
"""Of a gap's byte; the gap is the square of it."""
FLOOR = -40.0
"""Log-probabilities below are told as this: 4e-18, and not never."""


@dataclass
class TopKConfig(TeacherCacheConfig):
    """Keys of ``teacher_cache=topk``."""

    name: str = "topk"
    k: int = 64
    """Ids of a position; all others are one outcome."""
    temperatures: list[float] = field(default_factory=lambda: [1.0, 2.0])
    """Those at which the rest is known, which cannot be had later from the K ids: those of the methods that
    read it."""

    def __post_init__(self) -> None:
        check(self.k >= 1, f"teacher_cache.k must be at least 1, got {self.k}.")
        check(
            len(self.temperatures) > 0 and all(0 < T < math.inf for T in self.temperatures),
            f"teacher_cache.temperatures must all be above 0, got {list(self.temperatures)}.",
        )
        self.temperatures = sorted({float(T) for T in self.temperatures})


@register_format("topk", TopKConfig)
class TopK(CacheFormat[TopKConfig]):
    """A sparse signal."""

    smaller = "take a smaller teacher_cache.k, or for method=kd teacher_cache=sampled"

    def refusal(self, term: Term) -> str | None:
        """The rest of a top-k cannot be softened later."""
        known = self.config.temperatures
        if term.temperature in known:
            return None
        return (
            f"the rest of a top-k is known at temperature {', '.join(f'{T:g}' for T in known)} only, and "
            f"{term.name} asks for {term.temperature:g}. Give teacher_cache.temperatures="
            f"[{','.join(f'{T:g}' for T in sorted({*known, term.temperature}))}], or teacher_cache=hidden"
        )

    def cut(self, vocabulary: int) -> TopK:
        """With ``k`` at most the vocabulary, so that its cache has one key."""
        return TopK(replace(self.config, k=min(self.config.k, vocabulary)))

    def caution(self, term: Term, size: Size) -> str | None:
        """Softened rows leave much to the rest; other divergences than forward KL weigh what the student
        says, wherever that is. Where all ids are kept, there is no rest."""
        if self.config.k >= size.vocabulary:
            mine, exact = self.bytes_per_token(size), Hidden(HiddenConfig()).bytes_per_token(size)
            said = f"k={size.vocabulary} is the whole vocabulary: {mine:,.0f} bytes a token"
            return f"{said}, where teacher_cache=hidden takes {exact:,.0f}" if exact < mine else None
        beyond = f"beyond the teacher's {self.config.k} likeliest tokens"
        if term.score is not forward_kl:
            why = f"{term.name} weighs what the student says, and all of that {beyond} is one outcome here"
        elif term.temperature > 1:
            why = f"at temperature {term.temperature:g} much may lie {beyond}, which is one outcome here"
        else:
            return None
        return f"{why}: the gradient may be far off. teacher_cache=hidden is exact"

    def bytes_per_token(self, size: Size) -> float:
        """Ids, gaps, the likeliest, the largest gap, the rests."""
        k = min(self.config.k, size.vocabulary)
        return k * 2 + upper_bytes(k, size.vocabulary) + (k - 1) + 4 + 2 + 2 * len(self.config.temperatures)

    def encode(self, said: Dense, rows_N: Sequence[int], shared_vocabulary: int) -> dict[str, Tensor]:
        """Logits are made a chunk at a time."""
        import torch

        from distil.head import CHUNK
        from distil.sparse import Sparse

        c, parts = self.config, []
        for start in range(0, len(said.hidden_NH), CHUNK):
            logits_NV = said.head.logits(said.hidden_NH[start : start + CHUNK])[:, :shared_vocabulary]
            parts.append(self._kept(Sparse.top(logits_NV, c.k, c.temperatures), shared_vocabulary))
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    def _kept(self, signal: Sparse, vocabulary: int) -> dict[str, Tensor]:
        import torch

        rests = [signal.log_rest[T] for T in self.config.temperatures]
        return {
            **split_ids(signal.ids_NK, vocabulary),
            **gaps_of(signal.log_probabilities_NK.float()),
            "rest_NT": torch.stack(rests, -1).to(torch.float16),
        }

    def decode(self, stored: Stored, head: Head | None) -> Sparse:
        """K ids, their log-probabilities and the rest at each temperature."""
        from distil.sparse import Sparse

        rest_NT = stored["rest_NT"].float()
        rests = {T: rest_NT[:, i] for i, T in enumerate(self.config.temperatures)}
        return Sparse(join_ids(stored), from_gaps(stored), rests)


def gaps_of(falling_NK: Tensor) -> dict[str, Tensor]:
    """Falling numbers as the first, the widest gap, and a byte for each gap."""
    import torch

    falling_NK = falling_NK.clamp(min=FLOOR)
    top_N = falling_NK[:, 0]
    widest_N = (-falling_NK.diff(dim=-1)).amax(-1) if falling_NK.shape[-1] > 1 else torch.zeros_like(top_N)
    span_N = (widest_N * (1 + 2**-10)).to(torch.float16)  # never below it, for the widest may come often
    unit_N = span_N.float() / STEPS**2
    reached_N, steps = top_N.clone(), []
    for column_N in falling_NK[:, 1:].unbind(-1):
        wanted_N = (reached_N - column_N).clamp(min=0) / unit_N.clamp(min=torch.finfo(torch.float32).tiny)
        step_N = wanted_N.sqrt().round_().clamp_(max=STEPS)
        reached_N = reached_N - step_N.square() * unit_N
        steps.append(step_N.to(torch.uint8))
    gaps_NK = torch.stack(steps, -1) if steps else torch.empty(len(top_N), 0, dtype=torch.uint8)
    return {"top_N": top_N, "span_N": span_N, "gaps_NK": gaps_NK}


def from_gaps(stored: Stored) -> Tensor:
    """What ``gaps_of`` was given, (N, K) in float32."""
    import torch

    gaps_NK = stored["gaps_NK"].float().square_()
    fallen_NK = torch.nn.functional.pad(gaps_NK, (1, 0)).cumsum(-1)
    unit_N1 = stored["span_N"].float()[:, None] / STEPS**2
    return torch.addcmul(stored["top_N"][:, None], fallen_NK, unit_N1, value=-1)
