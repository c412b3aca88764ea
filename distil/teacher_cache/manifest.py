"""What a cache holds and what it was made from; whether every byte is as it was written. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distil.files import read_json, write_json

MANIFEST = "manifest.json"
FOLDER = ".teacher_cache"
"""Where caches lie below ``output_dir``: beside the runs that share them."""


@dataclass(frozen=True)
class Shard:
    """One file, as the manifest has it."""

    name: str
    first_row: int
    rows: int
    tokens: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What is in a folder, and what it was made from."""

    about: Mapping[str, Any]
    """The ingredients of its key, and names for people."""
    shards: tuple[Shard, ...]
    complete: bool

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """That of ``folder``; None where there is none that can be read."""
        try:
            held = read_json(folder / MANIFEST)
            return cls(held["about"], tuple(Shard(**shard) for shard in held["shards"]), held["complete"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Replace the one in ``folder``."""
        write_json(folder / MANIFEST, asdict(self))

    @property
    def tokens(self) -> int:
        """Positions of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)


def damage(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard; None where all of its bytes are those that were written."""
    path = folder / shard.name
    try:
        size = path.stat().st_size
        if size != shard.size:
            return f"{path} has {size:,} bytes instead of {shard.size:,}"
        return None if digest_of(path) == shard.sha256 else f"{path} has changed"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def whole(folder: Path) -> Manifest | None:
    """The manifest of a complete folder whose bytes are all as they were written; else None."""
    manifest = Manifest.read(folder)
    if manifest is None or not manifest.complete:
        return None
    return None if any(damage(folder, shard) for shard in manifest.shards) else manifest


def caches(root: Path) -> dict[Path, Manifest]:
    """The caches in ``root``, by folder. What else lies there is left out."""
    found = {folder: Manifest.read(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    return {folder: manifest for folder, manifest in found.items() if manifest is not None}


def human_bytes(size: float) -> str:
    """A number of bytes for people."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
