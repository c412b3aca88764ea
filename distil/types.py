"""The words every module shares: shape letters, sequence sources, errors.

Shape letters, carried as suffixes of tensor names (``logits_BTV``, ``teacher_NV``):

    B  sequences    T  positions    N  scored positions    V  vocabulary    H  hidden width    K  terms
    R  rows of a packed batch or of a file, W wide      M  what is kept of all positions, one after the other
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

IGNORE_INDEX = -100
"""Label of a position that is not scored (the value ``torch.nn.functional.cross_entropy`` ignores)."""

Report: TypeAlias = Callable[[int, int], None]
"""Called with how many are done, of how many."""


class Sequences(str, Enum):
    """Whose sequences a term scores."""

    REFERENCE = "reference"
    """The data set's own responses."""
    ROLLOUT = "rollout"
    """Responses that the student sampled itself (on-policy)."""


REFERENCE = Sequences.REFERENCE
ROLLOUT = Sequences.ROLLOUT


class DistilError(Exception):
    """A failure with a message for the user: printed without a traceback, ended with ``exit_code``."""

    exit_code = 1


class InputError(DistilError):
    """Bad input from the user: names the key, the value and the way out. Raised before anything expensive."""

    exit_code = 2


class RunFailed(DistilError):
    """A run that stopped by itself (NaN, out of memory, full disk): what was written before is kept."""

    exit_code = 1


class RunDiverged(RunFailed):
    """Losses, gradients or weights that are no numbers: the same command would meet them again."""


class RunInterrupted(DistilError):
    """The user stopped the run (Ctrl-C): a checkpoint was written, the same command goes on."""

    exit_code = 130


class RunPreempted(RunInterrupted):
    """The machine asked for its place back (SIGTERM, SIGUSR1, SIGHUP): kept as after Ctrl-C.

    The code is that of ``sysexits.h`` for "try again": a scheduler may requeue the command.
    """

    exit_code = 75
