"""The processes of one run. ``torchrun`` starts several; the first alone writes, evaluates and speaks.

Gradients and counts go through torch.distributed. All else goes through its key-value store: there the others
can wait for the first as long as it takes, and whoever fails leaves word of it before the connection breaks.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from distil.types import DistilError, InputError, RunDiverged, RunFailed

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

LAST_WORDS = 3.0
"""Seconds within which a process that failed has said so, once its connection is closed."""
REFUSAL = timedelta(seconds=60)
"""How long a process that refuses its input waits for the first, which comes to the same in its own time."""
POLL = 0.05
"""Seconds between two looks into the store: a wait within it would hear no signal."""

MAIN_LEFT = "main has left"
FAILURE = "failure"

_store: Store | None = None
_asked = 0


def world_size() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def sharded() -> bool:
    """Whether the processes share out the weights too: ``accelerate launch`` says so in the environment."""
    return zero() or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def zero() -> bool:
    """Whether DeepSpeed shares them out."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def is_main() -> bool:
    """Whether this is the first process of the run, or the only one."""
    return world_size() == 1 or int(os.environ.get("RANK") or 0) == 0


@contextmanager
def joined(timeout_seconds: float) -> Iterator[None]:
    """Meet the other processes for the length of the block. Where there are none, nothing happens.

    ``timeout_seconds``: how long a process may lag behind in training (``trainer.ddp_timeout``).
    In all but the first, what fails inside comes out as RunFailed, once the first was told.
    """
    global _store
    if world_size() == 1:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or every process warns of its own
    import torch
    import torch.distributed as dist

    store, rank, world = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]  # public, not listed
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    patience = timedelta(seconds=timeout_seconds)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)
    _store = dist.PrefixStore("distil", store)  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, _stop if is_main() else signal.SIG_DFL)
    if not is_main():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once and without a word: the first has the last one
    _store.add("met", 1)
    while _store.add("met", 0) < world:  # who leaves before the others are here breaks their meeting
        time.sleep(POLL)
    try:
        yield
    except BaseException as error:
        _leave(_store, error)
        if is_main() or isinstance(error, DistilError):
            raise
        raise RunFailed(_reason(error)) from error  # told already: no traceback
    else:
        dist.destroy_process_group()
    finally:
        _store = None


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave(store: Store, error: BaseException) -> None:
    """Leave word of why. The end of this process then frees those that wait for it."""
    import torch

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of torchrun, for whom one end is the end of all
    with suppress(RuntimeError):  # the store is gone with the process that held it
        if is_main():
            store.set(MAIN_LEFT, "")
        elif store.add("failures", 1) == 1:  # what the next say is that this one is gone
            process, trace = int(os.environ["RANK"]) + 1, "".join(traceback.format_exception(error))
            store.set(FAILURE, json.dumps([process, _reason(error), trace, isinstance(error, RunDiverged)]))
            if torch.cuda.is_available() and not store.check([MAIN_LEFT]):
                # NCCL may hold the first for so long that torchrun kills it: told twice is better than never.
                print(f"error: Process {process} of {world_size()}: {_reason(error)}", file=sys.stderr)
        if not is_main() and isinstance(error, InputError):
            store.wait([MAIN_LEFT], REFUSAL)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, DistilError) else f"{type(error).__name__}: {error}"


@contextmanager
def one_failure() -> Iterator[None]:
    """In the first process, raise what another failed of, in place of a broken connection: as RunDiverged
    where it was that, else as RunFailed."""
    try:
        yield
    except BaseException as error:
        if _store is None:
            raise
        # torchrun sends it where another has ended: this one is still to write and to say why.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopped = isinstance(error, KeyboardInterrupt)
        if not (stopped or _is_broken_connection(error)):
            raise
        who = f"of {world_size()}"
        if (word := _last_words(_store)) is not None:
            process, reason, trace, diverged = word
            logger.info("In process %s %s:\n%s", process, who, trace)
            raise (RunDiverged if diverged else RunFailed)(f"Process {process} {who}: {reason}") from None
        if stopped:
            raise
        first = str(error).splitlines()[0]
        raise RunFailed(
            f"Another process {who} ended without a word: killed, perhaps for want of memory ({first})."
        ) from None


def _is_broken_connection(error: BaseException) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "NCCL"))


def _last_words(store: Store) -> tuple[int, str, str, bool] | None:
    """Which process failed, of what, its traceback, and whether training diverged there."""
    until = time.monotonic() + LAST_WORDS
    while time.monotonic() < until:
        with suppress(RuntimeError):
            if store.check([FAILURE]):
                process, reason, trace, diverged = json.loads(store.get(FAILURE))
                return process, reason, trace, diverged
        time.sleep(POLL)
    return None


def from_main(work: Callable[[], Result]) -> Result:
    """What ``work`` gives in the first process, in all of them; the others wait as long as it takes.

    The result is JSON. All processes must come here in the same order.
    """
    global _asked
    if world_size() == 1:
        return work()
    assert _store is not None, "the processes have not met"
    _asked += 1
    key = f"from_main/{_asked}"
    if is_main():
        result = work()
        _store.set(key, json.dumps(result))
        return result
    while not _store.check([key]):
        if _store.check([MAIN_LEFT]):
            raise RunFailed("The first process has ended.")
        time.sleep(POLL)
    told: Result = json.loads(_store.get(key))
    return told


def gathered(own: Result) -> list[Result]:
    """What each process has, in their order, in all of them; all must ask."""
    if world_size() == 1 or _store is None:
        return [own]
    import torch.distributed as dist

    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, own)
    return found


def any_of(flag: bool) -> bool:
    """Whether ``flag`` is true in any process."""
    if world_size() == 1 or _store is None:
        return flag
    import torch
    import torch.distributed as dist

    count = torch.tensor([int(flag)])
    dist.all_reduce(count)
    return bool(count)
