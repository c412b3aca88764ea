"""Scores that runs share: evaluated once for what they hang on, and again where any of it differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from distil.adapters.none import NoneConfig
from distil.config.schema import ExperimentConfig, ModelConfig, StudentConfig, TeacherConfig
from distil.data.columns import Kind, Shape
from distil.data.jsonl import JsonlConfig
from distil.data.splits import Splits
from distil.engine.evaluation import Evaluation
from distil.evaluation_cache import LIBRARIES, EvaluationCache
from distil.methods.kd import KDConfig
from distil.models import load_student, load_tokenizer
from distil.parts import Parts
from distil.system import environment
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
    evaluated: list[str] = []
    taken: list[bool] = []

    def of(device: str) -> Parts:
        student = tiny_llama(1).to(torch.device(device))
        tokenizer = load_tokenizer(model)[0]
        return Parts(
            tokenizer,
            Splits(rows, rows, rows, {}, Shape(Kind.PAIR)),
            None,
            student,
            VOCABULARY,
            (EOS,),
            [],
            base,
        )

    def score(device: str, case: str) -> float:
        def evaluate() -> Evaluation:
            evaluated.append(case)
            return Evaluation({"nll": float(len(evaluated))}, [], 1, [])

        known = EvaluationCache(config, of(device), case, lambda line: None)
        nll = known.student(evaluate).scores["nll"]
        assert nll is not None
        taken.append(bool(known.taken_over))
        assert known.taken_over in ({}, {"student_before": "first"})
        return nll

    assert score("cpu", "first") == score("cpu", "again") == 1
    assert score("meta", "device") == 2
    known = environment.versions()
    for number, library in enumerate(LIBRARIES, 3):
        monkeypatch.setattr(environment, "versions", lambda library=library: known | {library: "0.1"})
        assert score("cpu", library) == number
    monkeypatch.undo()
    assert score("cpu", "back") == 1
    assert evaluated == ["first", "device", *LIBRARIES]
    assert score("cpu", "first") == 1
    assert taken == [False, True, False, *(False for _ in LIBRARIES), True, False], (
        "a run that goes on has its own"
    )
    files = (tmp_path / "outputs").rglob("*.json")
    (kept,) = [file for file in files if '"run": "first"' in file.read_text(encoding="utf-8")]
    earlier = kept.read_text(encoding="utf-8").replace('"run"', '"unknown"')  # versions that kept no run
    kept.write_text(earlier, encoding="utf-8")
    known = EvaluationCache(config, of("cpu"), "now", lambda line: None)
    assert known.student(lambda: Evaluation({}, [], 1, [])).scores["nll"] == 1
    assert known.taken_over == {"student_before": "an earlier run"}
