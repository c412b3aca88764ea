"""What 64 ids keep of a real teacher: stories260K against three of its own layers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.divergences import GeneralizedJSD, forward_kl
from distil.head import Dense, score
from distil.losses import Term
from distil.models import load_student, load_teacher, load_tokenizer
from distil.sparse import Sparse
from distil.teacher_cache.build import TeacherForward
from distil.teacher_cache.formats.base import Size
from distil.teacher_cache.formats.topk import TopK, TopKConfig
from distil.types import REFERENCE

if TYPE_CHECKING:
    from distil.losses import Score

DATA = Path(os.environ.get("DISTIL_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
MODEL, STORIES = DATA / "models" / "stories260K", DATA / "tinystories" / "test.jsonl"

pytestmark = pytest.mark.skipif(not (MODEL.is_dir() and STORIES.is_file()), reason="no shared data here")


@pytest.fixture(scope="module")
def pair() -> tuple[Dense, Dense]:
    """What teacher and student say about the same stories."""
    config = ModelConfig("stories", TeacherConfig(path=str(MODEL)), StudentConfig(keep_layers=[0, 2, 4]))
    tokenizer, _ = load_tokenizer(config)
    with STORIES.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for _, line in zip(range(10), lines, strict=False)]
    ids = [tokenizer(text)["input_ids"][:128] for text in texts]
    rows = [{"input_ids": row, "labels": row} for row in ids]
    teacher = load_teacher(config)
    assert teacher is not None
    says = [TeacherForward(model, 0, None)(rows) for model in (teacher, load_student(config, 0).model)]
    return says[0], says[1]


def gradient(student: Dense, signal: Dense | Sparse, term: Term) -> Tensor:
    hidden_NH = student.hidden_NH.detach().clone().requires_grad_()
    targets_N = torch.zeros(len(hidden_NH), dtype=torch.long)
    loss, _ = score(Dense(hidden_NH, student.head), targets_N, [term], signal, 512)
    (along,) = torch.autograd.grad(loss, hidden_NH)
    return along


@pytest.mark.parametrize("divergence", [forward_kl, GeneralizedJSD(0.5)], ids=["forward KL", "JSD"])
def test_64_ids_and_the_rest_are_within_two_per_cent_in_220_bytes(
    divergence: Score, pair: tuple[Dense, Dense]
) -> None:
    teacher, student = pair
    kept = TopK(TopKConfig())
    term = Term(1.0, REFERENCE, divergence)
    n = len(teacher.hidden_NH)
    full = gradient(student, teacher, term)
    ours = gradient(student, kept.decode(kept.encode(teacher, [0] * n, 512), None), term)
    assert (ours - full).norm() < 0.02 * full.norm()
    assert kept.bytes_per_token(Size(512, 64, 4)) <= 220
