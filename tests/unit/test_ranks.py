"""What one of several processes failed of is what the first one says, and writes down."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from distil.processes import ranks
from distil.status import kept_status
from distil.types import DistilError, RunDiverged, RunFailed


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[dist.Store]:
    """The store of two processes, which are played by this one, one after the other."""
    store = dist.HashStore()
    monkeypatch.setattr(ranks, "_store", store)
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    yield store
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("error", [RunDiverged("The loss of step 3 is nan."), RunFailed("The disk is full.")])
def test_a_run_that_diverged_in_another_process_diverged(
    error: DistilError, two: dist.Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that nobody is offered a command that would meet the same step."""
    monkeypatch.setenv("RANK", "1")
    ranks._leave(two, error)
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(type(error), match=f"^Process 2 of 2: {error}$") as caught,
        kept_status(tmp_path, "name", "python run.py"),
        ranks.one_failure(),
    ):
        raise RuntimeError("[gloo/transport] Connection closed by peer")
    diverged = isinstance(error, RunDiverged)
    assert isinstance(caught.value, RunDiverged) is diverged
    told = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    assert (told["status"], told["diverged"]) == ("failed", diverged)
