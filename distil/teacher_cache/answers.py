"""A teacher's answers as they come back from the disk, and its head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distil.engine.anatomy import plain_head
from distil.head import Dense, Head
from distil.sparse import Sparse
from distil.system.units import human_bytes
from distil.teacher_cache.build import check_room
from distil.teacher_cache.formats.base import CacheFormat
from distil.teacher_cache.manifest import MANIFEST, Manifest, kept_shards, whole
from distil.teacher_cache.once import once
from distil.teacher_cache.store import Reader, read_tensors, unreadable, write_shard
from distil.types import InputError

HEAD = "head.safetensors"


class CachedTeacher:
    """What a teacher said about the rows of one split, by their numbers.

    Args:
        reader: of a complete cache.
        kept: the format that it is in.
        head: the teacher's, where the format needs it, on ``device``.

    Raises InputError where what was kept is not of the format.
    """

    def __init__(
        self, reader: Reader, kept: CacheFormat[Any], head: Head | None, device: torch.device
    ) -> None:
        self.reader = reader
        self.format = kept
        self.head = head
        self.device = device
        try:  # one row tells whether the tensors are those of the format
            self([0] if reader.rows else [])
        except (KeyError, LookupError, ValueError, TypeError, AssertionError) as error:
            raise unreadable(reader.folder / MANIFEST, error) from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise unreadable(reader.folder / MANIFEST, error) from error

    def __call__(self, rows: Sequence[int]) -> Dense | Sparse:
        """The signal at the scored positions of ``rows``, one row after the other."""
        stored = {name: tensor.to(self.device) for name, tensor in self.reader(rows).items()}
        return self.format.decode(stored, self.head)


def ensure_head(
    folder: Path,
    about: Mapping[str, Any],
    teacher: Callable[[], nn.Module],
    device: torch.device,
    say: Callable[[str], None],
) -> Head:
    """The teacher's output head, kept in ``folder``; from the teacher where it is not there yet."""

    def make() -> Manifest:
        kept_shards(folder)  # names what is damaged
        tensors = _tensors(teacher())
        needed = sum(tensor.nbytes for tensor in tensors.values())
        check_room(folder, needed, f"the teacher's head: {human_bytes(needed)}")
        shard = write_shard(folder, HEAD, 0, [], tensors)
        manifest = Manifest(about, (shard,), complete=True)
        manifest.write(folder)
        return manifest

    once(folder, lambda: whole(folder), make, say)
    return read_head(folder, device)


def read_head(folder: Path, device: torch.device) -> Head:
    """The head that is kept in ``folder``. Raises InputError where it is none."""
    kept = read_tensors(folder / HEAD)
    try:
        return _head({name: tensor.to(device) for name, tensor in kept.items()})
    except (KeyError, ValueError, TypeError) as error:
        raise unreadable(folder / HEAD, error) from error


def _tensors(teacher: nn.Module) -> dict[str, Tensor]:
    head = plain_head(teacher)
    if head is None or head.weight_VH is None:
        raise InputError(
            f"teacher_cache: the output head of {type(teacher).__name__} is no plain matrix, so hidden "
            "states do not tell what it says. Give teacher_cache=none, or teacher_cache=topk with "
            "eval.teacher=false."
        )
    kept = {
        "weight_VH": head.weight_VH.detach().cpu(),
        "scale": torch.tensor(head.scale, dtype=torch.float64),
    }
    if head.bias_V is not None:
        kept["bias_V"] = head.bias_V.detach().cpu()
    if head.softcap is not None:
        kept["softcap"] = torch.tensor(head.softcap, dtype=torch.float64)
    return kept


def _head(kept: Mapping[str, Tensor]) -> Head:
    softcap = kept.get("softcap")
    return Head(
        kept["weight_VH"],
        kept.get("bias_V"),
        float(kept["scale"]),
        None if softcap is None else float(softcap),
    )
