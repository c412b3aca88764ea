"""Going on from a checkpoint whose bytes are as written, and which says what no run of ours would."""

from __future__ import annotations

import pickle  # for its error alone: nothing here reads one
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from distil.types import DistilError, RunFailed


@contextmanager
def going_on_from(checkpoint: str | Path | None) -> Iterator[None]:
    """Raise RunFailed, naming ``checkpoint``, where reading it fails; pickles of code are told apart."""
    try:
        yield
    except (DistilError, pickle.UnpicklingError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # their readers raise anything
        if checkpoint is None:
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunFailed(
            f"{checkpoint}: training cannot go on from what it holds ({text[:300]}). run.resume=false starts "
            "this run afresh."
        ) from error
