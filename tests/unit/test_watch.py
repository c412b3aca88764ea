"""Each sign of a collapse is said once, with its number; what a healthy student writes is not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from distil.rollouts import Generated
from distil.watch import ENOUGH, Watch, Written, entropy

REFERENCES = [[i % 50 + j for j in range(20)] for i in range(40)]
EOS = 1


def own(ids: torch.Tensor) -> torch.Tensor:
    return ids


def look(watch: Watch, step: int = 7, loss: float = 1.0) -> dict[str, float]:
    return watch.look(step, loss, 64, own)


def said(rollouts: Sequence[Generated], references: Sequence[Sequence[int]] = REFERENCES) -> Watch:
    watch = Watch()
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
    assert line.startswith("Step 7: of the last 40 rollouts")
    assert any(character.isdigit() for character in line.removeprefix("Step 7: of the last 40 rollouts"))
    assert caplog.messages.count(line) == 1
    watch.see(COLLAPSES[kind], REFERENCES)
    look(watch, 8)
    assert len([message for message in caplog.messages if "Step 8" in message]) == 0


def test_a_healthy_student_is_left_in_peace() -> None:
    assert said(HEALTHY).said == {}
    few = [Generated([EOS], True)] * (ENOUGH - 1)
    assert said(few).said == {}, "too few to tell"


def test_long_references_have_no_end_either() -> None:
    """Where references are longer than a rollout may be, the limit ends it, and not the student."""
    long = [list(range(100))] * 40
    assert "unended" not in said([Generated(list(range(64)), False)] * 40, long).said


def test_the_scalars_are_those_of_the_sequences() -> None:
    watch = Watch()
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


def test_shares_add_up_over_processes() -> None:
    """Two processes with the same rollouts see what one sees with them twice."""
    watch = Watch()
    watch.see(HEALTHY[:8], REFERENCES[:8])
    both = watch.look(1, 1.0, 64, lambda sums: sums * 2)
    alone = Watch()
    alone.see(HEALTHY[:8] * 2, REFERENCES[:8] * 2)
    assert both == pytest.approx(look(alone))


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([1.0] * 6 + [4.0], True),
        ([1.0] * 6 + [2.0], False),
        ([0.01] * 6 + [0.2], False),
        ([1.0, 4.0], False),
        ([1.0] * 6 + [math.nan], False),
    ],
)
def test_a_loss_that_jumps(losses: list[float], warned: bool) -> None:
    watch = Watch()
    for step, loss in enumerate(losses, 1):
        look(watch, step, loss)
    assert ("loss" in watch.said) is warned
    if warned:
        assert "Step 7: the loss is 4, 4.0 times" in watch.said["loss"]


def test_a_resumed_run_says_the_same() -> None:
    """Through JSON, in the middle of what two looks are apart."""
    watch = Watch()
    for step in range(5):
        look(watch, step)
    watch.see(COLLAPSES["entropy"][:20], REFERENCES[:20])
    other = Watch()
    other.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    for each in (watch, other):
        each.see(COLLAPSES["entropy"][20:], REFERENCES[20:])
    assert look(watch, 9, 9.0) == look(other, 9, 9.0)
    assert watch.said == other.said
    assert watch.said.keys() == {"entropy", "loss", "repetition"}


def test_a_rollout_without_any_token_is_empty() -> None:
    """A prompt that fills a model's positions leaves no room for one."""
    written = Written()
    written.add([], ended=False)
    assert (written.empty, written.unended) == (1, 1)
