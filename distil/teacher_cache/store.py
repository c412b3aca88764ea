"""A folder of shards: each complete or absent, hashed into a manifest, read through the memory map.

A shard holds a run of rows. It is written beside its place, synced and renamed, and only then named in the
manifest, which is replaced as a whole: after a kill all that the manifest names is there, and the rest is
built again. Knows tensors by name and nothing of what is in them.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distil.system.files import digest_of, fsync
from distil.system.printable import one_line
from distil.teacher_cache.manifest import Manifest, Shard
from distil.types import InputError

LENGTHS = "lengths_R"
"""Positions of each row of a shard."""
ENTRIES = "entries_N"
RAGGED = "_M"
"""How the names of tensors end that hold ``entries_N`` numbers a position."""


def write_shard(
    folder: Path, name: str, first_row: int, lengths: Sequence[int], kept: Mapping[str, Tensor]
) -> Shard:
    """Write one shard of rows with ``lengths`` positions each; it is there as a whole, or not at all."""
    partial, path = folder / f".{name}.partial", folder / name
    try:
        tensors = {LENGTHS: torch.tensor(list(lengths), dtype=torch.int32), **kept}
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial)
        digest = digest_of(partial)
        fsync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk the next message needs the room
        raise
    fsync(folder)
    return Shard(name, first_row, len(lengths), sum(lengths), path.stat().st_size, digest)


class Reader:
    """The tensors of any rows of a complete folder. Pages are shared by all processes that read it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises InputError where the tensors are not those of the rows that the manifest names."""
        shards = sorted(manifest.shards, key=lambda shard: shard.first_row)
        self.folder = folder
        self.first_rows = [shard.first_row for shard in shards]
        self.rows = sum(shard.rows for shard in shards)
        self._open = [_Open(folder / shard.name, shard.rows) for shard in shards]

    def __call__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """All positions of ``rows``, one row after the other. Raises IndexError for a row that is not
        there."""
        if not rows:
            return {name: tensor[:0] for name, tensor in self._open[0].tensors.items()}
        pieces: dict[str, list[Tensor]] = {}
        for row in rows:
            if not 0 <= row < self.rows:
                raise IndexError(f"row {row} of {self.rows}")
            at = bisect_right(self.first_rows, row) - 1
            for name, tensor in self._open[at].of_row(row - self.first_rows[at]):
                pieces.setdefault(name, []).append(tensor)
        return {name: torch.cat(tensors) for name, tensors in pieces.items()}


class _Open:
    """One shard's tensors, mapped and not read, and where its rows begin in them."""

    def __init__(self, path: Path, rows: int) -> None:
        tensors = read_tensors(path)
        self.firsts: list[int] = []
        try:
            self.starts: list[int] = _running(tensors.pop(LENGTHS)).tolist()
            if ENTRIES in tensors:
                firsts = _running(tensors[ENTRIES])[torch.tensor(self.starts)]
                self.firsts = firsts.tolist()
        except (KeyError, IndexError, RuntimeError, TypeError) as error:
            raise unreadable(path, error) from error
        self.firsts = self.firsts or self.starts
        self.tensors = tensors
        ends = {name: (self.firsts if name.endswith(RAGGED) else self.starts)[-1] for name in tensors}
        short = [name for name, tensor in tensors.items() if not tensor.ndim or len(tensor) != ends[name]]
        if short or len(self.starts) != rows + 1 or self.starts != sorted(self.starts):
            raise unreadable(path, f"it does not hold {rows} rows of {', '.join(short) or 'lengths'}")

    def of_row(self, row: int) -> list[tuple[str, Tensor]]:
        positions = slice(self.starts[row], self.starts[row + 1])
        entries = slice(self.firsts[row], self.firsts[row + 1])
        return [
            (name, tensor[entries if name.endswith(RAGGED) else positions])
            for name, tensor in self.tensors.items()
        ]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a shard, mapped. Raises InputError where it is none."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, why: object) -> InputError:
    """The message about a shard whose bytes are as its manifest says, and which is none of ours."""
    text = one_line(f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why)
    return InputError(
        f"{path} holds no answers of a teacher ({text}). It is made again after: distil cache clear "
        f"{path.parent.name} --folder {path.parent.parent}"
    )


def _running(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.long().cumsum(0), (1, 0))


def split_rows(kept: Mapping[str, Tensor], lengths: Sequence[int]) -> list[dict[str, Tensor]]:
    """The tensors of each row, of those of rows with ``lengths`` positions one after the other."""
    by_position = list(lengths)
    by_entry = by_position
    if ENTRIES in kept:
        by_entry = [int(part.sum()) for part in torch.split(kept[ENTRIES].long(), by_position)]
    parts = {
        name: torch.split(tensor, by_entry if name.endswith(RAGGED) else by_position)
        for name, tensor in kept.items()
    }
    return [{name: part[i] for name, part in parts.items()} for i in range(len(by_position))]


def join_rows(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of ``rows`` one after the other."""
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
