"""The output head and all that follows it: logits, log-probabilities, terms, gradient; a chunk at a time.

Three things meet here and know nothing of each other: a signal (hidden states at the scored positions, with
the head that turns them into logits), a divergence (a function of log-probabilities), and the head itself.
The (N, V) logits of a batch are never held: each chunk's gradient is taken while its logits are there, so
each head is multiplied once. Log-probabilities are float32 whatever the models are.

The way of one call of ``score``; 1 to 6 for each chunk of positions (``_Work.run``):

1. hidden states times the head, of the student and of a dense teacher: ``Product``
2. scale and soft cap, float32: ``Head.finish``
3. probabilities over each width at each temperature: ``fused.Logits``
4. the value of every term, and the slope of their weighted sum along the logits: ``fused.add_terms``
5. the slope along the product: ``Head.unfinish``
6. from it the gradients of hidden states, weight and bias, kept in float32: ``Gradients.add``
7. once the loss's own gradient is known, its product with those: ``_Score.backward``
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distil.fused import Logits, add_terms, blocks
from distil.losses import Term
from distil.projection import Gradients, Product, wide
from distil.slopes import Scratch, Slope
from distil.sparse import Sparse

CHUNK = 256
"""Scored positions at a time: enough for a fast matrix product, few enough to hold (chunk, V) a few times."""


@dataclass(frozen=True, eq=False)
class Head:
    """What turns hidden states into logits: a product, a scale (Cohere), a soft cap (Gemma)."""

    weight_VH: Tensor | None
    """None: the hidden states already are logits."""
    bias_V: Tensor | None = None
    scale: float = 1.0
    """Multiplies the logits."""
    softcap: float | None = None
    """Squashes them into (-softcap, softcap), after the scale."""

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits (N, V) in float32 (float64 for float64 models); the product follows dtype and autocast."""
        return self.finish(self.product(hidden_NH))

    def product(self, hidden_NH: Tensor) -> Tensor:
        """hidden W^T + b in the dtype that model and autocast give it."""
        if self.weight_VH is None:
            return hidden_NH
        dtype = self.weight_VH.dtype
        return torch.nn.functional.linear(
            hidden_NH.to(dtype), self.weight_VH, None if self.bias_V is None else self.bias_V.to(dtype)
        )

    def finish(self, product_NV: Tensor) -> Tensor:
        """Scale and soft cap, in float32."""
        logits_NV = product_NV.to(wide(product_NV.dtype))
        if self.scale != 1:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return logits_NV

    def unfinish(self, slope_NV: Tensor, logits_NV: Tensor) -> Tensor:
        """The slope along the product, from that along the finished logits; in place."""
        if self.softcap is not None:
            slope_NV *= 1 - (logits_NV / self.softcap).square()
        return slope_NV if self.scale == 1 else slope_NV.mul_(self.scale)


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense signal: what a model says at the scored positions, as hidden states and their head."""

    hidden_NH: Tensor
    head: Head


def score(
    student: Dense,
    targets_N: Tensor,
    terms: Sequence[Term],
    teacher: Dense | Sparse | None,
    shared_vocabulary: int,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Score N positions under every term: ``(loss, sums_K)``.

    ``loss`` is the scalar sum over terms of weight x the sum of the term's score over the positions, with a
    gradient to the student's hidden states, head weight and bias (those that want one). ``sums_K`` are the
    unweighted sums, detached; a term of weight 0 is not computed and its sum is 0. The caller divides.

    Cross-entropy is over the student's full vocabulary; divergences are over the first ``shared_vocabulary``
    ids, cut before the softmax; from a sparse teacher over its K ids and the rest. No positions give 0 with a
    live graph. Differentiable once.
    """
    active = [term for term in terms if term.weight != 0]
    if not any(term.needs_teacher for term in active):
        teacher = None
    elif teacher is None:
        raise ValueError(f"No teacher, but one of these terms asks it: {[term.name for term in active]}.")
    head = student.head
    result: tuple[Tensor, Tensor] = _Score.apply(  # type: ignore[no-untyped-call]  # torch's apply has no types
        student.hidden_NH,
        head.weight_VH,
        head.bias_V,
        _Work(head, targets_N, tuple(terms), teacher, shared_vocabulary, chunk, torch.is_grad_enabled()),
    )
    return result


@torch.no_grad()
def log_probabilities(
    student: Dense, teacher: Dense | None, targets_N: Tensor, chunk: int = CHUNK
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """For evaluation: ``(student_NV, teacher_NV or None, targets_N)`` chunks, float32, without gradient.

    Each row is normalised over its own model's full vocabulary. To compare over shared ids, slice and apply
    ``log_softmax`` again: that equals slicing the logits.
    """
    for start in range(0, len(targets_N), chunk):
        rows = slice(start, start + chunk)
        student_NV = student.head.logits(student.hidden_NH[rows]).log_softmax(-1)
        teacher_NV = None if teacher is None else teacher.head.logits(teacher.hidden_NH[rows]).log_softmax(-1)
        yield student_NV, teacher_NV, targets_N[rows]


@dataclass(frozen=True, eq=False)
class _Work:
    """What ``_Score`` is to do, apart from the tensors that take a gradient."""

    head: Head
    targets_N: Tensor
    terms: tuple[Term, ...]
    teacher: Dense | Sparse | None
    shared_vocabulary: int
    chunk: int
    with_gradient: bool

    def run(self, hidden_NH: Tensor, wanted: Sequence[bool], by_formula: bool) -> tuple[Tensor, Gradients]:
        """Sum of each term over all positions, and the gradients of their weighted sum, chunk by chunk."""
        n, head = len(hidden_NH), self.head
        gradients = Gradients(hidden_NH, head.weight_VH, head.bias_V, wanted)
        product = Product(head.weight_VH, head.bias_V, min(self.chunk, n))
        signal_of, scratch = self._signals(min(self.chunk, n)), Scratch()
        values_KN = hidden_NH.new_zeros((len(self.terms), n), dtype=wide(hidden_NH.dtype))
        # The dtype of each product is settled: autocast would lower float32 slopes, and formulas.
        with torch.autocast(hidden_NH.device.type, enabled=False):
            for start in range(0, n, self.chunk):
                rows = slice(start, start + self.chunk)
                student_NV, signal = product(hidden_NH[rows]), signal_of(rows)
                slope_NV = gradients.room(student_NV, rows)
                for block in blocks(len(student_NV), student_NV.shape[-1], student_NV.device):
                    values_KN[:, rows][:, block] = self._block(
                        student_NV[block],
                        None if signal is None else signal[block],
                        self.targets_N[rows][block],
                        None if slope_NV is None else slope_NV[block],
                        scratch,
                        by_formula,
                    )
                    scratch.clear()
                if slope_NV is not None:
                    gradients.add(slope_NV, rows)
        return values_KN.sum(-1), gradients

    def _signals(self, rows: int) -> Callable[[slice], Tensor | Sparse | None]:
        """What the teacher says at a chunk of at most ``rows`` positions: a product, or as it is."""
        teacher = self.teacher
        if not isinstance(teacher, Dense):
            return lambda chunk: None if teacher is None else teacher[chunk]
        product, hidden_NH = Product(teacher.head.weight_VH, teacher.head.bias_V, rows), teacher.hidden_NH
        return lambda chunk: product(hidden_NH[chunk])

    def _block(
        self,
        product_NV: Tensor,
        signal: Tensor | Sparse | None,
        targets_N: Tensor,
        slope_NV: Tensor | None,
        scratch: Scratch,
        by_formula: bool,
    ) -> Tensor:
        """Values of one block; its slope along the product goes to ``slope_NV``, which may lie over it."""
        student = Logits(self.head.finish(product_NV), scratch)
        teacher: Logits | Sparse | None
        if isinstance(signal, Tensor):
            assert isinstance(self.teacher, Dense)
            teacher = Logits(self.teacher.head.finish(signal), scratch)
        else:
            teacher = signal
        direct = slope_NV is not None and slope_NV.dtype == student.logits_NV.dtype
        slope = Slope(slope_NV if direct and slope_NV is not None else scratch.like(student.logits_NV))
        values_KN = add_terms(
            student, targets_N, self.terms, teacher, self.shared_vocabulary, slope, by_formula
        )
        if slope_NV is not None:
            along_NV = self.head.unfinish(slope.so_far(), student.logits_NV)
            if not direct:
                slope_NV.copy_(along_NV)
        return values_KN


class _Score(torch.autograd.Function):
    """``score`` with its gradient computed on the way forward, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor | None, bias_V: Tensor | None, work: _Work
    ) -> tuple[Tensor, Tensor]:
        """Sums of all chunks; gradients for what wants them are kept for ``backward``."""
        wanted = [work.with_gradient and needed for needed in ctx.needs_input_grad[:3]]
        sums_K, gradients = work.run(hidden_NH, wanted, by_formula=False)
        if not sums_K.isfinite().all():
            # Infinite logits (ids that are ruled out): 0 x inf is NaN in a closed form, not in a formula.
            sums_K, gradients = work.run(hidden_NH, wanted, by_formula=True)
        ctx.gradients = gradients
        # Not a product of matrices: autocast would make that half precision.
        scale_K = sums_K.new_tensor([term.weight for term in work.terms])
        loss = (sums_K * scale_K).sum()
        ctx.mark_non_differentiable(sums_K)
        return loss, sums_K

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, _sums_gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients times the loss's own."""
        return *ctx.gradients.scaled(loss_gradient), None
