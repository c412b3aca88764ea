"""What every method must hold to, the user's own included (DISTIL_PLUGINS names where they are)."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from distil.config.schema import MethodConfig
from distil.head import Dense, Head, score
from distil.losses import Term
from distil.methods.base import METHODS
from distil.types import REFERENCE, ROLLOUT
from tests.training import METHOD_NAMES, VOCABULARY, build_method

ROOT = Path(__file__).resolve().parents[2]
OURS = [name for name in METHOD_NAMES if METHODS.get(name).factory.__module__.startswith("distil.methods.")]


def terms_of(name: str) -> tuple[Term, ...]:
    return build_method(name).terms(0)


def logits(seed: int, rows: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, VOCABULARY, generator=generator)


@pytest.mark.parametrize("name", OURS)
def test_one_name(name: str) -> None:
    """File stem = registry name = YAML stem = the config's own name."""
    entry = METHODS.get(name)
    assert entry.factory.__module__.rpartition(".")[2] == name
    assert (ROOT / "conf" / "method" / f"{name}.yaml").is_file()
    assert entry.config is not None
    assert entry.config().name == name


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_config_is_a_method_config(name: str) -> None:
    """Shared keys can be swept across all methods; those a method ignores are among its keys."""
    config = METHODS.get(name).config
    assert config is not None
    assert issubclass(config, MethodConfig)
    keys = {field.name for field in fields(config)}
    assert set(config.ignored) <= keys


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_ignored_keys_are_ignored(name: str) -> None:
    """A key left out of the identity of a run must not change its terms; one that is in it may."""
    config = METHODS.get(name).config
    assert config is not None
    plain = terms_of(name)
    for key, value in (("temperature", 3.5), ("kd_loss_weight", 0.25)):
        changed = build_method(name, **{key: value}).terms(0)
        assert (changed == plain) is (key in config.ignored), f"{key} and {name}"


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_terms_are_sound(name: str) -> None:
    """Weights are at least 0 and some weigh.

    Cross-entropy never scores what the student sampled (trap 10).
    """
    terms = terms_of(name)
    assert any(term.weight > 0 for term in terms)
    for term in terms:
        assert term.weight >= 0
        assert term.temperature > 0
        assert term.sequences in (REFERENCE, ROLLOUT)
        assert term.needs_teacher or term.sequences is REFERENCE


@pytest.mark.parametrize("name", [n for n in METHOD_NAMES if any(t.needs_teacher for t in terms_of(n))])
def test_zero_at_equality(name: str) -> None:
    """A student that is its teacher has no divergence and feels no pull."""
    terms = [term for term in terms_of(name) if term.needs_teacher]
    student = logits(0).requires_grad_()
    loss, sums = score(
        Dense(student, Head(None)), torch.arange(7), terms, Dense(logits(0), Head(None)), VOCABULARY
    )
    assert torch.allclose(sums, torch.zeros(len(terms)), atol=1e-5)
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_positive_apart_and_finite_at_the_edge(name: str) -> None:
    """Different distributions diverge; sharp ones (float32's edge) give finite values and gradients."""
    terms = terms_of(name)
    for scale in (1.0, 1e3):
        student = (scale * logits(1)).requires_grad_()
        teacher = Dense(scale * logits(2), Head(None))
        loss, sums = score(Dense(student, Head(None)), torch.arange(7), terms, teacher, VOCABULARY)
        loss.backward()
        assert torch.isfinite(sums).all()
        assert all(float(value) > 0 for value, term in zip(sums, terms, strict=True) if term.weight)
        assert student.grad is not None
        assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_step_does_not_change_the_kind(name: str) -> None:
    """Terms at a later step are as sound: what loads (teacher, rollouts) is decided from step 0."""
    method = build_method(name)
    first, later = method.terms(0), method.terms(10_000)
    assert {t.sequences for t in later if t.weight} <= {t.sequences for t in first}
    assert any(t.needs_teacher for t in first) or not any(t.needs_teacher for t in later)
