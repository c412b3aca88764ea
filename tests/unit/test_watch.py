"""Each sign of a collapse is said once, with its number; what a healthy student writes is not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from distil.engine.rollouts import Generated
from distil.engine.watch import ENOUGH, Watch, Written, entropy

REFERENCES = [[i % 50 + j for j in range(20)] for i in range(40)]
EOS = 1
LIMIT = 64


def look(watch: Watch, step: int = 10, loss: float = 1.0) -> dict[str, float]:
    """The last step before a look, and what it brings."""
    watch.step(step, loss)
    return watch.news()


def said(rollouts: Sequence[Generated], references: Sequence[Sequence[int]] = REFERENCES) -> Watch:
    watch = Watch(LIMIT)
    watch.see(rollouts, references)
    look(watch)
    return watch


HEALTHY = [Generated([*ids, EOS], True) for ids in REFERENCES]
COLLAPSES: dict[str, Any] = {
    "empty": [Generated([EOS], True)] * 30 + HEALTHY[:10],
    "short": [Generated([3, 4, EOS], True)] * 40,
    "unended": [Generated(list(range(64)), False)] * 40,
    "repetition": [Generated([5, 6] * 30 + [EOS], True)] * 40,
    "entropy": [Generated([7] * 19 + [EOS], True)] * 40,
}


@pytest.mark.parametrize("kind", sorted(COLLAPSES))
def test_a_collapse_is_said_once_with_its_number(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    watch = said(COLLAPSES[kind])
    assert kind in watch.said
    line = watch.said[kind]
    assert line.startswith("Step 10: of the last 40 rollouts")
    assert any(character.isdigit() for character in line.removeprefix("Step 10: of the last 40 rollouts"))
    assert caplog.messages.count(line) == 1
    watch.see(COLLAPSES[kind], REFERENCES)
    look(watch, 20)
    assert len([message for message in caplog.messages if "Step 20" in message]) == 0


def test_a_healthy_student_is_left_in_peace() -> None:
    assert said(HEALTHY).said == {}
    few = [Generated([EOS], True)] * (ENOUGH - 1)
    assert said(few).said == {}, "too few to tell"


def test_long_references_have_no_end_either() -> None:
    """Where references are longer than a rollout may be, the limit ends it, and not the student."""
    long = [list(range(100))] * 40
    assert "unended" not in said([Generated(list(range(64)), False)] * 40, long).said


def test_the_scalars_are_those_of_the_sequences() -> None:
    watch = Watch(LIMIT)
    watch.see([Generated([4, 4, 4, 4, 4, EOS], True), Generated([5, 6], False)], [[2, 3]])
    seen = look(watch)
    assert seen["rollout_length"] == 4
    assert seen["rollout_unended"] == 0.5
    assert seen["rollout_empty"] == 0
    assert seen["rollout_repetition"] == pytest.approx(1 / 3), "4444 twice in three"
    shares = torch.tensor([5, 1, 1, 1], dtype=torch.float64) / 8
    expected = torch.distributions.Categorical(shares).entropy().item()
    assert seen["rollout_entropy"] == pytest.approx(expected)
    assert look(watch) == {}, "each look starts afresh"


def test_entropy_of_a_uniform_histogram() -> None:
    assert entropy([3, 3, 3, 3, 0]) == pytest.approx(math.log(4))
    assert entropy([]) == 0


def test_several_processes_see_what_one_sees() -> None:
    """Each has a half: of rollouts and of the loss."""
    halves = [Watch(LIMIT), Watch(LIMIT)]
    whole = Watch(LIMIT)
    for half, rows in zip(halves, (slice(0, 15), slice(15, 40)), strict=True):
        half.see(COLLAPSES["entropy"][rows], REFERENCES[rows])
        whole.see(COLLAPSES["entropy"][rows], REFERENCES[rows])
    states = [half._own() for half in halves]
    for half in halves:
        half.step(10, 0.5, lambda own: [own | {"loss": 0.5, "steps": 1}, states[1] | {"loss": 0.5}])
    # The first hands its own and the other's; the second alone stands for what both then hold.
    whole.step(10, 1.0)
    assert halves[0].news() == whole.news()
    assert halves[0].said == whole.said
    assert list(halves[0].losses) == list(whole.losses) == [1.0]


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([1.0] * 6 + [4.0], True),
        ([1.0] * 6 + [2.0], False),
        ([0.01] * 6 + [0.2], False),
        ([1.0, 4.0], False),
        ([0.0] * 6 + [4.0], True),
    ],
)
def test_a_loss_that_jumps(losses: list[float], warned: bool) -> None:
    watch = Watch(LIMIT)
    for number, loss in enumerate(losses, 1):
        look(watch, 10 * number, loss)
    assert ("loss" in watch.said) is warned
    if warned:
        assert "Step 70: the loss is 4" in watch.said["loss"]


def test_between_two_looks_the_mean_counts() -> None:
    """Whatever is logged: ten steps are one look."""
    watch = Watch(LIMIT)
    for step in range(1, 71):
        watch.step(step, 1.0 if step != 65 else 9.0)
    assert list(watch.losses) == [1.0] * 6 + [1.8]
    assert watch.said == {}


@pytest.mark.parametrize("at", [3, 10, 14])
def test_a_resumed_run_says_the_same(at: int) -> None:
    """Through JSON, in the middle of what two looks are apart."""

    def steps(watch: Watch, numbers: Sequence[int]) -> None:
        for step in numbers:
            watch.see(COLLAPSES["entropy"][step : step + 3], REFERENCES[step : step + 3])
            watch.step(step, 9.0 if step > 10 else 1.0)

    whole, first, second = Watch(LIMIT), Watch(LIMIT), Watch(LIMIT)
    steps(whole, range(1, 21))
    steps(first, range(1, at + 1))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    steps(second, range(at + 1, 21))
    assert second.said == whole.said
    assert whole.said.keys() == {"entropy", "repetition"}
    assert second.state_dict() == whole.state_dict()
    assert second.news() == whole.news()


def test_of_several_processes_one_brings_the_counts() -> None:
    watch, other = Watch(LIMIT), Watch(LIMIT)
    watch.see(HEALTHY, REFERENCES)
    watch.step(3, 1.0)
    other.load_state_dict(watch.state_dict(), mine=False)
    assert other.rollouts.sequences == 0
    assert (other.loss, other.steps) == (0.0, 1)


def test_a_rollout_without_any_token_is_empty() -> None:
    """A prompt that fills a model's positions leaves no room for one."""
    written = Written()
    written.add([], ended=False)
    assert (written.empty, written.unended) == (1, 1)
