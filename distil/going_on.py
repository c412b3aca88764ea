"""Going on from a checkpoint whose bytes are as written, and which says what no run of ours would."""

from __future__ import annotations

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
    except (DistilError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # their readers raise anything
        # Of a pickle that holds code, only_numbers names the file.
        if checkpoint is None or type(error).__name__ == "UnpicklingError":
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunFailed(
            f"{checkpoint}: training cannot go on from what it holds ({text[:300]}). run.resume=false starts "
            "this run afresh."
        ) from error
