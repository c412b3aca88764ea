"""Asks a teacher about every row of a data set, once, whoever comes first; goes on after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distil.data.collate import collate
from distil.engine.forward import Forward, scored_and_targets
from distil.system.units import human_bytes
from distil.teacher_cache.formats.base import CacheFormat, Size
from distil.teacher_cache.manifest import Manifest, Shard, kept_shards, whole
from distil.teacher_cache.once import once
from distil.teacher_cache.store import join_rows, split_rows, write_shard
from distil.types import IGNORE_INDEX, InputError, Report

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distil.head import Dense

SHARD_TOKENS = 16_384
"""Positions of a shard: what a kill may cost."""
SHARDS = 256
"""Of a cache at most, about: a large one has larger shards."""

Row = Mapping[str, Any]


class TeacherForward:
    """A teacher that is asked about rows.

    Args:
        model: in eval mode, on its device.
        pad_id: fills batches.
        autocast: the dtype of mixed precision that it runs under, as training would have it; None: its own.
    """

    def __init__(self, model: nn.Module, pad_id: int, autocast: torch.dtype | None) -> None:
        self.forward = Forward(model)
        self.device = next(model.parameters()).device
        self.pad_id = pad_id
        self.autocast = autocast

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> Dense:
        """What it says at the scored positions of ``rows``, one row after the other."""
        batch = collate(rows, self.pad_id)
        scored_BT, _ = scored_and_targets(batch["labels"])
        inputs = (batch["input_ids"], batch["attention_mask"], scored_BT)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return self.forward(*(x.to(self.device) for x in inputs))


@dataclass(frozen=True)
class Entry:
    """One cache: what is kept about which rows, and where."""

    folder: Path
    format: CacheFormat[Any]
    about: Mapping[str, Any]
    rows: Sequence[Row]
    """``input_ids`` and ``labels``."""
    size: Size
    batch_size: int

    @property
    def lengths(self) -> list[int]:
        """Scored positions of each row."""
        return [sum(label != IGNORE_INDEX for label in row["labels"][1:]) for row in self.rows]


def ensure(
    entry: Entry, load: Callable[[], TeacherForward], say: Callable[[str], None], report: Report | None = None
) -> Manifest:
    """The manifest of ``entry``, complete and every byte of it checked; what is not there is built.

    Args:
        load: gives the teacher; called only where something is to be built.
        say: takes a line for the person at the terminal: how large it will be, whom it waits for.
        report: hears how many rows are done, of how many.

    Raises InputError where there is no room, or the folder cannot be written to.
    """
    return once(entry.folder, lambda: whole(entry.folder), lambda: _build(entry, load, say, report), say)


def _build(
    entry: Entry, load: Callable[[], TeacherForward], say: Callable[[str], None], report: Report | None
) -> Manifest:
    folder, lengths = entry.folder, entry.lengths
    spans = _spans(lengths)
    kept = [
        shard for shard in kept_shards(folder) if (shard.first_row, shard.first_row + shard.rows) in spans
    ]
    _tidy(folder, {shard.name for shard in kept})
    there = {shard.first_row: shard for shard in kept}
    missing = sum(sum(lengths[a:b]) for a, b in spans if a not in there)
    _make_room(entry, sum(lengths), missing, say)
    shards: list[Shard] = []
    teacher: TeacherForward | None = None
    for number, (first, end) in enumerate(spans):
        shard = there.get(first)
        if shard is None:
            teacher = teacher or load()
            tensors = _tensors(entry, teacher, first, lengths[first:end], report)
            shard = write_shard(folder, f"{number:05d}.safetensors", first, lengths[first:end], tensors)
        shards.append(shard)
        later = [one for row, one in there.items() if row >= end]
        Manifest(entry.about, (*shards, *later), complete=False).write(folder)
    manifest = Manifest(entry.about, tuple(shards), complete=True)
    manifest.write(folder)
    return manifest


def _tidy(folder: Path, kept: Collection[str]) -> None:
    """Remove what a killed build left, what is damaged, and shards of another size."""
    for file in [*folder.glob("*.safetensors"), *folder.glob(".*.partial")]:
        if file.name not in kept:
            file.unlink()


def _spans(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """First row and end of each shard: the same for the same rows, whatever was built of them before."""
    most = max(SHARD_TOKENS, sum(lengths) // SHARDS)
    spans, first, tokens = [], 0, 0
    for row, length in enumerate(lengths):
        if tokens and tokens + length > most:
            spans.append((first, row))
            first, tokens = row, 0
        tokens += length
    return [*spans, (first, len(lengths))]


def check_room(folder: Path, needed: float, what: str, way_out: str = "") -> None:
    """Raise InputError where fewer than ``needed`` bytes are free for ``folder``.

    Args:
        what: would be written, and its size.
        way_out: beside more space and another folder.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"teacher_cache: {what}, and {human_bytes(free)} are free in {folder.parent}. "
            f"Free some space or give another teacher_cache.folder={way_out}."
        )


def _make_room(entry: Entry, tokens: int, missing: int, say: Callable[[str], None]) -> None:
    each = entry.format.bytes_per_token(entry.size)
    needed, split = each * missing, entry.about["split"]
    whole = f"{tokens:,} tokens x {each:,.0f} bytes = {human_bytes(each * tokens)}"
    # Evaluation keeps hidden states whatever training reads: another format would not change that.
    smaller = entry.format.smaller if split == "training" else "give eval.teacher=false"
    check_room(entry.folder, needed, f"{split} rows, {entry.format.config.name}: {whole}", f", or {smaller}")
    left = "" if missing == tokens else f", {human_bytes(needed)} of it still to come"
    what = f"{split} rows, {entry.format.config.name}"
    say(f"Teacher cache: {what}: {whole}{left}, in {entry.folder}")


def _tensors(
    entry: Entry, teacher: TeacherForward, first: int, lengths: Sequence[int], report: Report | None
) -> dict[str, Tensor]:
    """What is kept about ``len(lengths)`` rows from ``first`` on, in their order."""
    count, size = len(lengths), entry.batch_size
    rows: list[dict[str, Tensor]] = [{}] * count
    order = sorted(range(count), key=lambda i: -len(entry.rows[first + i]["input_ids"]))  # little padding
    for start in range(0, count, size):
        batch = order[start : start + size]
        said = teacher([entry.rows[first + i] for i in batch])
        if entry.format.needs_head and said.head.weight_VH is None:
            raise InputError(
                f"teacher_cache={entry.format.config.name}: the teacher's output head is no plain matrix, so "
                "its hidden states do not tell what it says. Give teacher_cache=none, or teacher_cache=topk "
                "with eval.teacher=false."
            )
        sizes = [lengths[i] for i in batch]
        of_row = [first + i for i, n in zip(batch, sizes, strict=True) for _ in range(n)]
        kept = entry.format.encode(said, of_row, entry.size.vocabulary)
        for i, row in zip(batch, split_rows(kept, sizes), strict=True):
            rows[i] = row
        if report is not None:
            report(first + min(start + size, count), len(entry.rows))
    return join_rows(rows)
