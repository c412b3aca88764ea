"""Whether the weights in a folder are all there: a copy or a download may have ended early."""

from __future__ import annotations

import json
from pathlib import Path

from distil.models.sources import Source
from distil.types import InputError

INDEX = "model.safetensors.index.json"
AGAIN = "Copy or download it again."


def check_whole(source: Source) -> None:
    """Raise InputError for a file of ``source``'s folder that its index names and that is not there, or that
    ends before its tensors do. A few kilobytes of each file are read."""
    assert source.folder is not None
    for file in sorted(_named(source.folder) | set(source.folder.glob("*.safetensors"))):
        if not file.is_file():
            raise InputError(f"{source.label}: {INDEX} names {file.name}, which is not there. {AGAIN}")
        if _broken(file):
            size = f"{file.stat().st_size:,} bytes"
            raise InputError(f"{source.label}: {file.name} ({size}) is cut off or broken. {AGAIN}")


def _named(folder: Path) -> set[Path]:
    """The files that the index names; none where there is no index that can be read."""
    try:
        names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return {folder / Path(name).name for name in names}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def _broken(file: Path) -> bool:
    """Whether a safetensors file is shorter than its header says, or has none."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or 8 + length > size:
            return True
        try:
            header = json.loads(stream.read(length))
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
            return size < 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            return True
