"""A pickle that would run code is told from one that somebody else could not read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from distil.engine.checkpoint_reading import numbers_only
from distil.types import RunFailed


def test_only_what_the_checkpoint_holds_is_blamed_on_it(tmp_path: Path) -> None:
    torch.save({"step": torch.ones(2)}, tmp_path / "optimizer.pt")
    with pytest.raises(pickle.UnpicklingError, match="a plugin's"), numbers_only(str(tmp_path)):
        raise pickle.UnpicklingError("a plugin's")
    with pytest.raises(pickle.UnpicklingError), numbers_only(None):
        raise pickle.UnpicklingError
    torch.save({"step": Path("/x")}, tmp_path / "scheduler.pt")
    with (
        pytest.raises(RunFailed, match=r"scheduler\.pt holds more than numbers"),
        numbers_only(str(tmp_path)),
    ):
        torch.load(tmp_path / "scheduler.pt", weights_only=True)
