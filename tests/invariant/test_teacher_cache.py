"""Training from a cache is training beside the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from distil.engine.trainer import DistillationTrainer
from distil.teacher_cache.answers import CachedTeacher, ensure_head
from distil.teacher_cache.build import Entry, TeacherForward, ensure
from distil.teacher_cache.formats.base import CacheFormat, Size
from distil.teacher_cache.formats.hidden import Hidden, HiddenConfig
from distil.teacher_cache.formats.sampled import Sampled, SampledConfig
from distil.teacher_cache.formats.topk import TopK, TopKConfig
from distil.teacher_cache.store import Reader
from distil.types import RunFailed
from tests.training import EOS, FAMILIES, VOCABULARY, Setup, build_method, distance, losses

ALL_IDS = TopKConfig(k=VOCABULARY, temperatures=[1.0, 2.0])
each_method = pytest.mark.parametrize("method", ["kd", "revkd", "gkd"])


def teacher_of(family: str) -> PreTrainedModel:
    return FAMILIES[family](2, width=24, layers=3).eval().requires_grad_(False)


def cached(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    kept: CacheFormat[Any],
    family: str,
    autocast: torch.dtype | None,
) -> CachedTeacher:
    teacher = teacher_of(family)
    about = {"split": "training"}
    entry = Entry(folder / "it", kept, about, rows, Size(VOCABULARY, 24, 4), batch_size=5)
    manifest = ensure(entry, lambda: TeacherForward(teacher, EOS, autocast), lambda _: None)
    head = ensure_head(folder / "head", about, lambda: teacher, torch.device("cpu"), lambda _: None)
    return CachedTeacher(Reader(folder / "it", manifest), kept, head, torch.device("cpu"))


def trained(
    tmp_path: Path, method: str, kept: CacheFormat[Any] | None, family: str = "llama", **keys: Any
) -> DistillationTrainer:
    setup = Setup(build_method(method), tmp_path, family=family, steps=20, **keys)
    autocast = torch.bfloat16 if setup.arguments.get("bf16") else None
    if kept is not None:
        setup.options["cached"] = cached(tmp_path, setup.rows, kept, family, autocast)
    return setup.train()


@each_method
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kept", [Hidden(HiddenConfig()), TopK(ALL_IDS)], ids=["hidden", "all ids"])
def test_twenty_steps_from_the_cache_are_those_beside_the_teacher(
    method: str, family: str, kept: CacheFormat[Any], tmp_path: Path
) -> None:
    """Hidden states to rounding; all ids in a byte each to theirs."""
    live = trained(tmp_path / "live", method, None, family, dropout=0.1)
    stored = trained(tmp_path / "stored", method, kept, family, dropout=0.1)
    tight = isinstance(kept, Hidden)
    # Where a gradient is 0 (GPT-2's biases of keys) Adam makes steps of what rounding leaves.
    assert distance(live.model, stored.model) < (2e-5 if tight and family == "llama" else 2e-2)
    assert losses(stored) == pytest.approx(losses(live), rel=1e-5 if tight else 1e-2)


def test_batches_do_not_matter(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"dropout": 0.0}
    whole = trained(tmp_path / "whole", "kd", TopK(TopKConfig(k=5)), batch=4, accumulation=1, **keys)
    parts = trained(tmp_path / "parts", "kd", TopK(TopKConfig(k=5)), batch=1, accumulation=4, **keys)
    assert distance(whole.model, parts.model) < 1e-4


def test_in_half_precision(tmp_path: Path) -> None:
    """The teacher speaks in the precision of training when it is asked beforehand, too."""
    keys: dict[str, Any] = {"arguments": {"bf16": True}}
    live = trained(tmp_path / "live", "kd", None, **keys)
    stored = trained(tmp_path / "stored", "kd", Hidden(HiddenConfig()), **keys)
    assert losses(stored) == pytest.approx(losses(live), rel=1e-2)


def test_the_teacher_itself_is_not_needed(tmp_path: Path) -> None:
    setup = Setup(build_method("kd"), tmp_path, teacher=lambda _: None)  # type: ignore[arg-type,return-value]
    setup.options["cached"] = cached(tmp_path, setup.rows, Sampled(SampledConfig()), "llama", None)
    assert all(loss > 0 for loss in losses(setup.train()))


def test_a_term_that_the_cache_cannot_serve_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    setup = Setup(build_method("revkd"), tmp_path)
    setup.options["cached"] = cached(tmp_path, setup.rows, Sampled(SampledConfig()), "llama", None)
    with pytest.raises(RunFailed, match=r"Step 1: .*reverse_kl is another divergence"):
        setup.train()
