"""Scores that runs share: judged once for what they hang on, and again where any of it differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from distil import environment
from distil.adapters.none import NoneConfig
from distil.config.schema import ExperimentConfig, ModelConfig, StudentConfig, TeacherConfig
from distil.data.jsonl import JsonlConfig
from distil.data.splits import Splits
from distil.evaluation import Judgement
from distil.judged import Judged
from distil.methods.kd import KDConfig
from distil.models import load_student, load_tokenizer
from distil.parts import Parts
from tests.training import EOS, VOCABULARY, random_rows, tiny_llama


def test_scores_of_another_device_or_library_are_not_taken_for_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding differs, and a run's own scores must be of one machine."""
    tiny_llama(1).save_pretrained(tmp_path / "student")
    model = ModelConfig(
        "m", TeacherConfig(path="distil:embedded/teacher"), StudentConfig(path=str(tmp_path / "student"))
    )
    config = ExperimentConfig(
        method=KDConfig(),
        model=model,
        peft=NoneConfig(),
        data=JsonlConfig(),
        output_dir=str(tmp_path / "outputs"),
    )
    base = load_student(model, 0)
    rows = Dataset.from_list(random_rows(3))
    judged: list[str] = []

    def score(device: str, case: str) -> float:
        student = tiny_llama(1).to(torch.device(device))
        tokenizer = load_tokenizer(model)[0]
        parts = Parts(tokenizer, Splits(rows, rows, rows, {}), None, student, VOCABULARY, (EOS,), [], base)

        def judge() -> Judgement:
            judged.append(case)
            return Judgement({"nll": float(len(judged))}, [], 1, [])

        return Judged(config, parts, lambda line: None).student(judge).scores["nll"]

    assert score("cpu", "first") == score("cpu", "again") == 1
    assert score("meta", "device") == 2
    known = environment.versions()
    for number, library in enumerate(("torch", "transformers"), 3):
        monkeypatch.setattr(environment, "versions", lambda library=library: known | {library: "0.1"})
        assert score("cpu", library) == number
    monkeypatch.undo()
    assert score("cpu", "back") == 1
    assert judged == ["first", "device", "torch", "transformers"]
