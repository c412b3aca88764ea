"""The output head and all that follows it: logits, log-probabilities, terms, gradient; a chunk at a time.

Three things meet here and know nothing of each other: a signal (hidden states at the scored positions, with
the head that turns them into logits), a divergence (a function of log-probabilities), and the head itself.
The (N, V) logits of a batch are never held: each chunk's gradient is taken while its logits are there, so
each head is multiplied once. Gradients stay float32 until the loss's own scale is known; log-probabilities
are float32 whatever the models are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distil.losses import Term

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
        logits_NV = _widen(product_NV)
        if self.scale != 1:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return logits_NV


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense signal: what a model says at the scored positions, as hidden states and their head."""

    hidden_NH: Tensor
    head: Head


def score(
    student: Dense,
    targets_N: Tensor,
    terms: Sequence[Term],
    teacher: Dense | None,
    shared_vocabulary: int,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Score N positions under every term: ``(loss, sums_K)``.

    ``loss`` is the scalar sum over terms of weight x the sum of the term's score over the positions, with a
    gradient to the student's hidden states, head weight and bias (those that want one). ``sums_K`` are the
    unweighted sums, detached; a term of weight 0 is not computed and its sum is 0. The caller divides.

    Cross-entropy is over the student's full vocabulary; divergences are over the first ``shared_vocabulary``
    ids, cut before the softmax. No positions give 0 with a live graph. Differentiable once.
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
    teacher: Dense | None
    shared_vocabulary: int
    chunk: int
    with_gradient: bool

    def sums(self, product_NV: Tensor, teacher_NV: Tensor | None, targets_N: Tensor) -> Tensor:
        """Unweighted sum of each term over the positions of one chunk, from the student's product."""
        student = _Outcomes(self.head.finish(product_NV))
        teacher = None if teacher_NV is None else _Outcomes(teacher_NV)
        zero = product_NV.new_zeros((), dtype=student.logits_NV.dtype)
        sums = []
        for term in self.terms:
            if term.weight == 0:
                sums.append(zero)
            elif term.needs_teacher:
                assert teacher is not None
                width, T = self.shared_vocabulary, term.temperature
                sums.append(term.score(teacher.at(width, T), student.at(width, T)).sum())
            else:
                sums.append(term.score(targets_N, student.at(None, term.temperature)).sum())
        return torch.stack(sums)


class _Outcomes:
    """One chunk's logits, and their log-probabilities at each width and temperature: computed once each."""

    def __init__(self, logits_NV: Tensor) -> None:
        self.logits_NV = logits_NV
        self._known: dict[tuple[int, float], Tensor] = {}

    def at(self, width: int | None, temperature: float) -> Tensor:
        """Log-probabilities over the first ``width`` ids (None: all), softened by ``temperature``."""
        size = self.logits_NV.shape[-1]
        width = size if width is None else width
        assert width <= size, f"{width} shared ids, but only {size} logits"
        if (width, temperature) not in self._known:
            logits_NV = self.logits_NV[:, :width]
            if temperature != 1:
                logits_NV = logits_NV / temperature
            self._known[width, temperature] = logits_NV.log_softmax(-1)
        return self._known[width, temperature]


class _Score(torch.autograd.Function):
    """``score`` with its gradient computed on the way forward, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor | None, bias_V: Tensor | None, work: _Work
    ) -> tuple[Tensor, Tensor]:
        """Sums of all chunks; gradients for what wants them are kept for ``backward``."""
        wanted = [work.with_gradient and needed for needed in ctx.needs_input_grad[:3]]
        inputs = (hidden_NH, weight_VH, bias_V)
        gradients = [
            torch.zeros_like(x, dtype=_wide(x.dtype)) if x is not None and want else None
            for x, want in zip(inputs, wanted, strict=True)
        ]
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        weights_K = [term.weight for term in work.terms]
        wide = _wide(hidden_NH.dtype)
        sums_K = hidden_NH.new_zeros(len(weights_K), dtype=wide)
        scale_K = torch.tensor(weights_K, dtype=wide, device=hidden_NH.device)
        for start in range(0, len(hidden_NH), work.chunk):
            rows = slice(start, start + work.chunk)
            teacher = work.teacher
            teacher_NV = None if teacher is None else teacher.head.logits(teacher.hidden_NH[rows])
            product_NV = work.head.product(hidden_NH[rows])
            # A float32 leaf: the terms' gradient stops here and goes on through the product by hand.
            leaf_NV = _widen(product_NV.detach()).requires_grad_(any(wanted))
            with _no_autocast(leaf_NV), torch.set_grad_enabled(any(wanted)):
                chunk_K = work.sums(leaf_NV, teacher_NV, work.targets_N[rows])
                sums_K += chunk_K.detach()
                if chunk_K.requires_grad:
                    (slope_NV,) = torch.autograd.grad((chunk_K * scale_K).sum(), leaf_NV)
                    _accumulate(gradients, slope_NV, hidden_NH[rows], weight_VH, rows, product_NV.dtype)
        ctx.gradients = gradients
        loss = (sums_K * scale_K).sum()  # not a product of matrices: autocast would make that half precision
        ctx.mark_non_differentiable(sums_K)
        ctx.set_materialize_grads(False)
        return loss, sums_K

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor | None, _sums_gradient: None) -> tuple[Tensor | None, ...]:
        """The kept gradients times the loss's own (its count, any loss scale), in the inputs' dtypes."""
        if loss_gradient is None:
            return None, None, None, None
        scaled = [
            None if gradient is None else (gradient * loss_gradient).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        return *scaled, None


def _accumulate(
    gradients: list[Tensor | None],
    slope_NV: Tensor,
    hidden_NH: Tensor,
    weight_VH: Tensor | None,
    rows: slice,
    product_dtype: torch.dtype,
) -> None:
    """Add one chunk's share to the gradients of hidden states, weight and bias, given that of the product.

    bfloat16 products are differentiated in bfloat16, as autograd does; float16 ones in float32, for small
    slopes would underflow before any loss scale has seen them.
    """
    for_hidden, for_weight, for_bias = gradients
    dtype = product_dtype if product_dtype == torch.bfloat16 else slope_NV.dtype
    if for_bias is not None:
        for_bias += slope_NV.sum(0)
    if weight_VH is None:
        if for_hidden is not None:
            for_hidden[rows] = slope_NV
        return
    slope_NV = slope_NV.to(dtype)
    if for_hidden is not None:
        for_hidden[rows] = slope_NV @ weight_VH.to(dtype)
    if for_weight is not None:
        for_weight += slope_NV.T @ hidden_NH.to(dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """float32 at least: float64 stays, all else becomes float32."""
    return torch.promote_types(dtype, torch.float32)


def _widen(x: Tensor) -> Tensor:
    return x.to(_wide(x.dtype))


def _no_autocast(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
