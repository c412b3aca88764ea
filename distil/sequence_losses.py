"""The divergences of this project as functions of two models' logits: the low-level losses of the library.

Teacher first, as in all of this project. Each is a mean over unmasked positions, in nats; nothing is shifted,
so position t of mask and logits belong together. While training the engine never holds such logits: see
``distil.head``; the formulas are the same.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from distil.losses import Score


def sequence_kl_divergence(
    teacher_logits: Tensor,
    student_logits: Tensor,
    *,
    temperature: float = 1.0,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """KL(teacher || student), mean over unmasked positions, in nats; mean-seeking.

    sum over v of p(v) (log p(v) - log q(v)), p the teacher's and q the student's distribution, softmaxes of
    the logits over ``temperature``. Hinton et al. 2015, arXiv 1503.02531, section 2.

    Args:
        teacher_logits: (B, T, V), or any shape that ends in the vocabulary. Takes no gradient.
        student_logits: the same positions. Where the two vocabularies differ in size, both are cut to the
            ids that they share, before the softmax.
        temperature: divides both logits. The value is the plain divergence: T^2 belongs to the weight of the
            term (``alpha * T**2`` in KD).
        attention_mask: (B, T), 0 where a position does not count. None: all count. With no position left the
            value is 0, and has a gradient. NaN in a masked position does no harm.

    Returns:
        A float32 scalar, in nats a position.

    Raises:
        ValueError: for shapes that do not fit, or a temperature that is not above 0.
    """
    return _mean(forward_kl, teacher_logits, student_logits, temperature, attention_mask)


def sequence_reverse_kl_divergence(
    teacher_logits: Tensor,
    student_logits: Tensor,
    *,
    temperature: float = 1.0,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """KL(student || teacher), mean over unmasked positions, in nats; mode-seeking.

    sum over v of q(v) (log q(v) - log p(v)), p the teacher's and q the student's distribution; the teacher's
    logits come first here too. Gu et al. 2023 (MiniLLM), arXiv 2306.08543, section 2.

    Args:
        teacher_logits: (B, T, V), or any shape that ends in the vocabulary. Takes no gradient.
        student_logits: the same positions; of two vocabularies the shared ids count.
        temperature: divides both logits; no T^2 is added.
        attention_mask: (B, T), 0 where a position does not count. None: all count.

    Returns:
        A float32 scalar, in nats a position.

    Raises:
        ValueError: for shapes that do not fit, or a temperature that is not above 0.
    """
    return _mean(reverse_kl, teacher_logits, student_logits, temperature, attention_mask)


def generalized_jsd_loss(
    teacher_logits: Tensor,
    student_logits: Tensor,
    *,
    lambda_weight: float = 0.5,
    temperature: float = 1.0,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """The generalised Jensen-Shannon divergence, mean over unmasked positions, in nats.

    lambda KL(teacher || M) + (1 - lambda) KL(student || M), with M = lambda teacher + (1 - lambda) student.
    At most ln 2; exactly 0 at both ends of lambda. Agarwal et al. 2023 (GKD), arXiv 2306.13649, section 2.

    Args:
        teacher_logits: (B, T, V), or any shape that ends in the vocabulary. Takes no gradient.
        student_logits: the same positions; of two vocabularies the shared ids count.
        lambda_weight: lambda, in [0, 1]: the teacher's part of the mixture inside the divergence (TRL's
            ``beta``). Not ``lambda_gkd``, which is the share of the data set's sequences.
        temperature: divides both logits; no T^2 is added.
        attention_mask: (B, T), 0 where a position does not count. None: all count.

    Returns:
        A float32 scalar, in nats a position.

    Raises:
        ValueError: for shapes that do not fit, a temperature that is not above 0, or a ``lambda_weight``
            outside [0, 1].
    """
    _check_number("lambda_weight", lambda_weight)
    if not 0 <= lambda_weight <= 1:
        raise ValueError(f"lambda_weight must lie in [0, 1], got {lambda_weight}.")
    return _mean(GeneralizedJSD(lambda_weight), teacher_logits, student_logits, temperature, attention_mask)


def _mean(
    divergence: Score,
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float,
    attention_mask: Tensor | None,
) -> Tensor:
    import torch

    _check_logits("teacher_logits", teacher_logits)
    _check_logits("student_logits", student_logits)
    shape = student_logits.shape[:-1]
    if teacher_logits.shape[:-1] != shape:
        raise ValueError(
            f"teacher_logits {tuple(teacher_logits.shape)} and student_logits {tuple(student_logits.shape)} "
            "do not speak about the same positions: all but the last size must agree."
        )
    _check_number("temperature", temperature)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}.")
    if attention_mask is None:
        counted = torch.ones(shape, dtype=torch.bool, device=student_logits.device)
    else:
        counted = _positions(attention_mask, shape).to(student_logits.device)
    shared = min(teacher_logits.shape[-1], student_logits.shape[-1])

    def rows(logits: Tensor) -> Tensor:
        # Selected before any arithmetic: a masked NaN must not reach the gradient.
        selected_NV = logits.to(student_logits.device)[counted][:, :shared]
        return (selected_NV.float() / temperature).log_softmax(-1)

    value_N = divergence(rows(teacher_logits.detach()), rows(student_logits))
    return value_N.sum() / max(value_N.numel(), 1)


def _positions(attention_mask: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask as booleans; ValueError where it is none for logits of ``shape``."""
    _check_tensor("attention_mask", attention_mask)
    if attention_mask.shape != shape:
        raise ValueError(f"attention_mask is {tuple(attention_mask.shape)}, the logits want {tuple(shape)}.")
    counted = attention_mask.bool()
    if bool((attention_mask != counted).any()):
        raise ValueError(
            "attention_mask holds other values than 0 and 1. Of labels: attention_mask=labels != -100."
        )
    return counted


def _check_tensor(name: str, value: object) -> None:
    import torch

    if not isinstance(value, torch.Tensor):
        where = ": give its .logits" if hasattr(value, "logits") else ": give a tensor"
        raise ValueError(f"{name} is a {type(value).__name__}{where}.")
    if value.ndim == 0:
        raise ValueError(f"{name} is one number: give a tensor that ends in the vocabulary.")


def _check_logits(name: str, value: Tensor) -> None:
    _check_tensor(name, value)
    if not value.is_floating_point():
        raise ValueError(f"{name} holds {value.dtype}: logits are floating point, and token ids are none.")
    if value.shape[-1] == 0:
        raise ValueError(f"{name} {tuple(value.shape)} has no vocabulary: its last size is 0.")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}={value!r} is a {type(value).__name__}: give a number.")
