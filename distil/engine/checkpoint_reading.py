"""Reading a checkpoint whose bytes are as written, and which may say what no run of ours would.

A pickle can run whatever code it likes when it is read. torch.load(weights_only=True), which Trainer uses for
optimizer, scheduler, scaler and random state, takes numbers and containers, and stops at all else.
"""

from __future__ import annotations

import pickle  # for its error alone: nothing here reads one
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from distil.system.printable import one_line
from distil.types import DistilError, RunFailed

SUFFIXES = (".bin", ".pt", ".pth")
"""Of what torch writes by pickle."""


@contextmanager
def readable(checkpoint: str | Path | None) -> Iterator[None]:
    """Raise RunFailed, naming ``checkpoint``, where reading it fails; of pickles, ``numbers_only`` tells."""
    try:
        yield
    except (DistilError, torch.OutOfMemoryError, MemoryError, pickle.UnpicklingError):
        raise
    except Exception as error:  # their readers raise anything
        if checkpoint is None:
            raise
        text = one_line(f"{type(error).__name__}: {error}")
        raise RunFailed(
            f"{checkpoint}: training cannot go on from what it holds ({text}). run.resume=false starts "
            "this run afresh."
        ) from error


@contextmanager
def numbers_only(checkpoint: str | None) -> Iterator[None]:
    """Raise RunFailed, naming the file, where what is read of ``checkpoint`` is more than numbers.

    What anybody else's pickles raise (a plugin's, say) goes by.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        named = "" if checkpoint is None else ", ".join(_refused(Path(checkpoint)))
        if not named:
            raise
        raise RunFailed(
            f"{checkpoint}: {named} holds more than numbers (a pickle that would run code), and none of it "
            "was run. Nothing of ours writes that: remove the checkpoint, and distrust where it came from. "
            "run.resume=false starts this run afresh."
        ) from error


def _refused(checkpoint: Path) -> Iterator[str]:
    """The files that torch does not take as numbers."""
    from transformers.trainer_pt_utils import safe_globals  # the arrays of numpy's random state

    for file in sorted(checkpoint.iterdir()):
        if file.suffix in SUFFIXES:
            try:
                with safe_globals():  # type: ignore[no-untyped-call]  # theirs has no types
                    torch.load(file, map_location="cpu", weights_only=True)
            except Exception:  # whatever a damaged one raises
                yield file.name
