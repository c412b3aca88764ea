"""A step that is no number stops the run, or leaves no trace in weights and optimizer but its count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, TrainerCallback

from distil.engine.broken_steps import DIVERGED, Broken, BrokenSteps
from distil.engine.trainer import DistillationTrainer
from distil.run_files import BROKEN_STEPS
from distil.types import RunDiverged, RunFailed
from tests.training import Setup, build_method, distance, losses, random_rows, tiny_llama

POISON = 63
"""A token of which the teacher knows nothing but NaN."""
POISONED = (5, 17)
"""Rows that begin with it."""


def rows() -> list[dict[str, Any]]:
    made = random_rows(24)
    for i, row in enumerate(made):
        for key in ("input_ids", "prompt_ids", "labels"):
            row[key] = [2 if token == POISON else token for token in row[key]]
        if i in POISONED:
            row["input_ids"][0] = row["prompt_ids"][0] = POISON
    return made


def poisoned_teacher(_student: PreTrainedModel) -> PreTrainedModel:
    teacher = tiny_llama(2, width=24, layers=3, tied=False).eval().requires_grad_(False)
    teacher.get_input_embeddings().weight[POISON] = torch.nan
    return teacher


class Steps(TrainerCallback):
    """The weights after each step."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.trainer = trainer
        self.weights = [self._now()]

    def _now(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.trainer.model.parameters()])

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.weights.append(self._now())


def trained(folder: Path, most: int, resume: Path | None = None, **keys: Any) -> tuple[Any, Steps]:
    method = build_method(keys.pop("method", "kd"))
    broken_steps = BrokenSteps(most, folder / BROKEN_STEPS, rows=list(range(100, 124)))
    options = {"shared_vocabulary": POISON, "broken_steps": broken_steps}  # no rollout writes the poison
    keys = {"steps": 6, "options": options} | keys
    setup = Setup(method, folder, rows=rows(), teacher=poisoned_teacher, **keys)
    trainer = setup.trainer()
    steps = Steps(trainer)
    trainer.add_callback(steps)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, steps


def terms(trainer: DistillationTrainer) -> list[float]:
    return [value for line in trainer.state.log_history for key, value in line.items() if "per_token" in key]


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / BROKEN_STEPS).read_text().splitlines()]


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (2, 2)])
@pytest.mark.parametrize("method", ["kd", "gkd"])
def test_a_step_that_is_left_out_changes_nothing(
    method: str, batch: int, accumulation: int, tmp_path: Path
) -> None:
    """Also where one micro-batch of two is broken; weight decay and momentum rest too."""
    trainer, steps = trained(tmp_path, 2, method=method, batch=batch, accumulation=accumulation)
    records = kept(tmp_path)
    broken = [record["step"] for record in records]
    assert len(broken) == len(set(broken)) == trainer.broken_steps.skipped > 0
    for number, (before, after) in enumerate(zip(steps.weights, steps.weights[1:], strict=False), 1):
        assert torch.equal(before, after) is (number in broken), f"step {number}"
    state = next(iter(trainer.optimizer.optimizer.state.values()))
    assert int(state["step"]) == 6 - len(broken)
    named = {row - 100 for record in records for row in record["rows"]}
    assert set(POISONED) <= named, "the file names the rows by their number in the source"
    assert all(len(record["rows"]) == 4 for record in records), "the whole window"
    assert all(("rollouts" in record) == (method == "gkd") for record in records)
    assert all(value == value for value in losses(trainer)), "no nan in the logged mean"
    assert terms(trainer)
    assert all(value == value for value in terms(trainer))
    good = 6 - len(broken)
    assert len(losses(trainer)) == good, "a step that is left out has no loss to log"
    assert [f"{len(broken)} step" in note for note in trainer.broken_steps.notes()] == [True]


def test_what_is_logged_is_of_the_steps_that_were_taken(tmp_path: Path) -> None:
    """Without moving weights: two logs of three steps against six of one; loss, terms and tokens."""
    still = {"learning_rate": 0.0}
    one, _ = trained(tmp_path / "one", 2, arguments=still)
    three, _ = trained(tmp_path / "three", 2, arguments=still | {"logging_steps": 3})
    broken = {record["step"] for record in kept(tmp_path / "one")}
    by_step = {record["step"]: record for record in one.state.log_history if "grad_norm" in record}
    for record in (record for record in three.state.log_history if "grad_norm" in record):
        steps = [step for step in range(record["step"] - 2, record["step"] + 1) if step not in broken]
        assert record["loss"] == pytest.approx(sum(by_step[step]["loss"] for step in steps) / len(steps))
    cut, _ = trained(tmp_path / "cut", 2, batch=2, accumulation=2, arguments=still | {"logging_steps": 3})
    assert terms(cut) == pytest.approx(terms(three)), "also of a step that was broken in its second half"
    counted = [len(row["labels"]) - sum(label == -100 for label in row["labels"]) for row in rows()]
    left_out = {row - 100 for record in kept(tmp_path / "one") for row in record["rows"]}
    assert one.tally.scored_tokens == sum(count for i, count in enumerate(counted) if i not in left_out)


def test_what_teacher_and_student_do_not_share_breaks_no_step(tmp_path: Path) -> None:
    """A teacher that gives no number for the tokens that only it has."""

    def longer(_student: PreTrainedModel) -> PreTrainedModel:
        teacher = tiny_llama(2, width=24, layers=3, tied=False).eval().requires_grad_(False)
        teacher.get_output_embeddings().weight[POISON:] = torch.nan
        return teacher

    options = {"shared_vocabulary": POISON}
    trainer = Setup(build_method("kd"), tmp_path, rows=rows(), teacher=longer, options=options).train()
    assert len(losses(trainer)) == 3


def test_at_most_so_many(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"Left out before: 1.*max_skipped_steps=10"):
        trained(tmp_path, 1)
    assert len(kept(tmp_path)) == 2, "the one that stopped it is kept too"


def test_without_leave_the_first_stops(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"The loss of step \d is nan; training rows \[.*\] \(broken_steps"):
        trained(tmp_path, 0, batch=2, accumulation=2)
    (record,) = kept(tmp_path)
    assert len(record["rows"]) == 2, "the micro-batch that was met"
    assert {row - 100 for row in record["rows"]} & set(POISONED)


@pytest.mark.parametrize("rate", [0.0, 10.0])
def test_where_the_loss_has_left_the_ground_no_step_is_to_be_left_out(rate: float, tmp_path: Path) -> None:
    """A student that is in ruins is not saved by that; sound until then, it may be."""
    setup = Setup(
        build_method("sft"), tmp_path, steps=6, arguments={"learning_rate": rate, "max_grad_norm": 0.0},
        options={"broken_steps": BrokenSteps(0, tmp_path / BROKEN_STEPS)},
    )  # fmt: skip
    trainer = setup.trainer()

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, torch.inf) if trainer.state.global_step == 4 else gradient

    next(trainer.model.parameters()).register_hook(spoil)
    with pytest.raises(RunDiverged, match=r"gradient of step 5 .*learning_rate") as stopped:
        trainer.train()
    said, largest = str(stopped.value), max(losses(trainer))
    assert (largest > DIVERGED) is bool(rate)
    assert ("max_skipped_steps" in said) is not bool(rate)
    assert ("The loss had risen to " in said) is bool(rate)


@pytest.mark.parametrize("most", [0, 1])
def test_a_gradient_that_is_no_number(most: int, tmp_path: Path) -> None:
    """The loss is fine; the rows are those of the whole step, whose terms are not logged."""
    options = {"broken_steps": BrokenSteps(most, tmp_path / BROKEN_STEPS)}
    setup = Setup(
        build_method("sft"),
        tmp_path,
        batch=2,
        accumulation=2,
        options=options,
        arguments={"logging_steps": 2},
    )
    trainer = setup.trainer()
    calls: list[int] = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(trainer.state.global_step)
        return torch.full_like(gradient, torch.inf) if trainer.state.global_step == 1 else gradient

    next(trainer.model.parameters()).register_hook(spoil)
    if most:
        trainer.train()
        assert trainer.broken_steps.skipped == 1
        assert 2 in calls, "and training went on"
        first = trainer.state.log_history[0]
        assert first["cross_entropy_per_token"] == pytest.approx(first["loss"]), "both of step 1 alone"
    else:
        with pytest.raises(RunFailed, match=r"The gradient of step 2 is (nan|inf)"):
            trainer.train()
    (record,) = kept(tmp_path)
    assert (record["step"], record["what"], len(record["rows"])) == (2, "gradient", 4)


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    """Gone on from any checkpoint: the same weights, the same count, no step in the file twice."""
    arguments = {"save_strategy": "steps", "save_steps": 1}
    whole, steps = trained(tmp_path, 2, arguments=arguments)
    records = kept(tmp_path)
    for at in (1, records[0]["step"], 5):
        resumed, _ = trained(tmp_path, 2, tmp_path / f"checkpoint-{at}", arguments=arguments)
        assert distance(whole.model, resumed.model) == 0
        assert resumed.broken_steps.skipped == whole.broken_steps.skipped
        assert kept(tmp_path) == records
    assert len(steps.weights) == 7


def test_how_high_the_loss_rose_is_kept_for_who_goes_on() -> None:
    before, after = BrokenSteps(), BrokenSteps()
    before.see(2 * DIVERGED)
    after.load_state_dict(before.state_dict())
    with pytest.raises(RunDiverged, match=r"The loss had risen to 2e\+03") as stopped:
        after.meet(7, [Broken("gradient", float("inf"), [3], [])])
    assert "max_skipped_steps" not in str(stopped.value)
