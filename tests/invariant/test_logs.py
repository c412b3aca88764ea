"""What is logged: by whom, of what, and after a resume what would have been logged, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from distil.processes import ranks
from tests.training import VOCABULARY, Setup, build_method, random_rows


@pytest.mark.parametrize("method", ["kd", "gkd"])
def test_logs_of_a_resumed_run(method: str, tmp_path: Path) -> None:
    """Checkpoints in the middle of what a log is the mean of, and of what the watch looks at."""
    arguments = {"logging_steps": 5, "save_strategy": "steps", "save_steps": 3}

    def logged(resume: Path | None = None) -> list[dict[str, Any]]:
        setup = Setup(
            build_method(method), tmp_path, steps=12, rows=random_rows(48), dropout=0.1, arguments=arguments
        )
        trainer = setup.train(resume)
        return [record for record in trainer.state.log_history if "grad_norm" in record]

    whole = logged()
    assert [record["step"] for record in whole] == [5, 10, 12], "and the last step"
    assert all(record["loss"] > 0 for record in whole)
    assert ("rollout_length" in whole[1]) is (method == "gkd")
    for at in (3, 6, 9):
        assert logged(tmp_path / f"checkpoint-{at}") == whole


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_brings_the_counts(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the processes of a run note is summed over them: gone on, the others begin at 0."""
    silent = {"logging_strategy": "no"}
    before = Setup(build_method("gkd"), tmp_path, steps=2, arguments=silent).train().own_state()
    trainer = Setup(build_method("gkd"), tmp_path).trainer()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    assert ranks.is_main() is (rank == 0)
    trainer.load_own_state(before)
    own = trainer.own_state()
    for counted in ("tokens", "sums"):
        told = own["since_log"][counted]
        assert told == {name: n if rank == 0 else 0 for name, n in before["since_log"][counted].items()}
        assert all(before["since_log"][counted].values())
    assert own["watch"]["loss"] == (before["watch"]["loss"] if rank == 0 else 0)
    assert before["watch"]["loss"] > 0


def test_who_wants_no_logs_has_none(tmp_path: Path) -> None:
    trainer = Setup(build_method("sft"), tmp_path, arguments={"logging_strategy": "no"}).train()
    assert not any("loss" in record for record in trainer.state.log_history)


def test_the_norm_is_that_of_the_whole_gradient(tmp_path: Path) -> None:
    """Before it is clipped."""
    free, clipped = (
        Setup(build_method("sft"), tmp_path, steps=1, arguments={"max_grad_norm": norm}).train()
        for norm in (1e9, 1e-3)
    )
    assert clipped.state.log_history[0]["grad_norm"] == free.state.log_history[0]["grad_norm"] > 1e-3


def test_rollouts_without_an_end_are_said_with_their_limit(tmp_path: Path) -> None:
    options = {"eos_ids": [VOCABULARY]}  # which nobody can write
    trainer = Setup(build_method("gkd"), tmp_path, steps=10, options=options).train()
    assert "100% have no end after rollouts.max_new_tokens=12" in trainer.watch.said["unended"]


def test_what_watches_is_told_the_step_and_what_evaluates_the_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[PreTrainedModel] = []
    steps: list[int] = []

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        given.append(model)
        return {"nll_per_token": 1.0}

    arguments = {"eval_strategy": "steps", "eval_steps": 3}
    options = {"evaluate_student": evaluate}
    trainer = Setup(build_method("sft"), tmp_path, arguments=arguments, options=options).trainer()
    monkeypatch.setattr(trainer.watch, "step", lambda step, *_: steps.append(step))
    trainer.train()
    assert steps == [1, 2, 3]
    assert len(given) == 1
    assert given[0] is trainer.model
