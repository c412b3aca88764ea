"""Going on from a checkpoint: what cannot be read is said, and the best one is found wherever it lies."""

from __future__ import annotations

import itertools
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from distil.types import RunFailed
from tests.training import Setup, build_method, distance


def setup(folder: Path, steps: int, **arguments: Any) -> Setup:
    """Each evaluation is worse than those before; the longer the training, the worse from its beginning."""
    scores = itertools.count(float(steps))
    saved = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    evaluated = {"evaluate_student": lambda model: {"nll_per_token": next(scores)}}
    return Setup(build_method("sft"), folder, steps=steps, arguments=saved | arguments, options=evaluated)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its first step."""
    folder = tmp_path_factory.mktemp("stopped")
    setup(folder, 1).train()
    return folder


@pytest.mark.parametrize(
    "file",
    [
        "trainer_state.json",
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "model.safetensors",
        "method_state.json",
    ],
)
def test_what_cannot_be_read_is_said_with_its_checkpoint(file: str, stopped: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-1"
    shutil.copytree(stopped / checkpoint.name, checkpoint)
    content = (checkpoint / file).read_bytes() if (checkpoint / file).exists() else b"of fp16"
    (checkpoint / file).write_bytes(content[: len(content) // 2])
    told = (
        rf"^{re.escape(str(checkpoint))}: training cannot go on .*run\.resume=false starts this run afresh\.$"
    )
    with pytest.raises(RunFailed, match=told):
        setup(tmp_path, 2).train(resume=checkpoint)


def test_a_state_that_counts_no_steps_is_said(stopped: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-1"
    shutil.copytree(stopped / checkpoint.name, checkpoint)
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    (checkpoint / "trainer_state.json").write_text(
        json.dumps(state | {"global_step": "one"}), encoding="utf-8"
    )
    with pytest.raises(RunFailed, match=rf"^{re.escape(str(checkpoint))}: training cannot go on .*TypeError"):
        setup(tmp_path, 2).train(resume=checkpoint)


@pytest.mark.parametrize("where", ["beside", "moved", "copied", "elsewhere"])
def test_the_best_checkpoint_is_found_where_it_lies(where: str, tmp_path: Path) -> None:
    """Nothing is better than the first step: gone on, a training ends with its weights."""
    first = setup(tmp_path / "run", 1, load_best_model_at_end=True).train()
    run = tmp_path / "run"
    if where == "moved":
        run = run.rename(tmp_path / "moved")
    if where == "copied":
        run = Path(shutil.copytree(run, tmp_path / "copied"))
    into = tmp_path / "elsewhere" if where == "elsewhere" else run
    again = setup(into, 3, load_best_model_at_end=True).train(resume=run / "checkpoint-1")
    assert again.state.best_model_checkpoint == str(run / "checkpoint-1")
    assert distance(first.model, again.model) == 0


def test_the_best_checkpoint_may_lie_in_the_folder_before_the_last(tmp_path: Path) -> None:
    first = setup(tmp_path / "a", 1, load_best_model_at_end=True).train()
    setup(tmp_path / "b", 2, load_best_model_at_end=True).train(resume=tmp_path / "a" / "checkpoint-1")
    last = setup(tmp_path / "c", 3, load_best_model_at_end=True).train(resume=tmp_path / "b" / "checkpoint-2")
    assert last.state.best_model_checkpoint == str(tmp_path / "a" / "checkpoint-1")
    assert distance(first.model, last.model) == 0


def test_tied_weights_are_saved_once_and_not_missed(
    stopped: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # to where caplog listens
    resumed = setup(stopped, 1).train(resume=stopped / "checkpoint-1")
    assert resumed.model.config.tie_word_embeddings
    assert "missing keys" not in caplog.text


def test_a_best_checkpoint_that_is_gone_is_missed_by_who_wants_it(stopped: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-1"
    shutil.copytree(stopped / checkpoint.name, checkpoint)
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    state["best_model_checkpoint"] = str(tmp_path / "checkpoint-0")
    (checkpoint / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    gone = re.escape(str(tmp_path / "checkpoint-0"))
    told = (
        rf"^trainer\.load_best_model_at_end=true: .* {gone}, is gone\. run\.resume=false starts .*afresh\.$"
    )
    with pytest.raises(RunFailed, match=told):
        setup(tmp_path, 2, load_best_model_at_end=True).train(resume=checkpoint)
    assert setup(tmp_path, 2).train(resume=checkpoint).state.global_step == 2
