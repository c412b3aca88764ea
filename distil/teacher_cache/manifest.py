"""What a cache holds and what it was made from; whether every byte is as it was written. No torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distil.system.files import digest_of, read_json, write_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FOLDER = ".teacher_cache"
"""Where caches lie below ``output_dir``: beside the runs that share them."""
NAMED = re.compile(r".+-[0-9a-f]{12}")
"""The folder of a cache: its format, or ``head``, and its key."""
SHARD = re.compile(r"[\w-]+\.safetensors", re.ASCII)
OURS = re.compile(r"manifest\.json|.+\.safetensors|\..+\.partial")
"""All that a cache's folder ever holds."""


@dataclass(frozen=True)
class Shard:
    """One file, as the manifest has it."""

    name: str
    first_row: int
    rows: int
    tokens: int
    size: int
    sha256: str

    def __post_init__(self) -> None:
        """Raise ValueError for what no shard of ours is: a file elsewhere, a count that is none."""
        counts = (self.first_row, self.rows, self.tokens, self.size)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"no counts: {counts}")
        if not isinstance(self.name, str) or SHARD.fullmatch(self.name) is None:
            raise ValueError(f"no name of a shard: {self.name!r}")


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
            shards = tuple(Shard(**shard) for shard in held["shards"])
            read = cls(held["about"], shards, held["complete"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return read if _about_fits(read.about) and read.complete in (True, False) else None

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


def _about_fits(about: object) -> bool:
    """Whether what a manifest says about its cache has the form that we give it."""
    if not isinstance(about, dict) or not isinstance(about.get("rows", 0), int):
        return False
    key = about.get("key") or {}
    return isinstance(key, dict) and all(
        isinstance(key.get(name) or {}, dict) for name in ("format", "teacher")
    )


def damage(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard; None where all of its bytes are those that were written."""
    path = folder / shard.name
    try:
        if path.exists() and not path.is_file():
            return f"{path} is no file"
        size = path.stat().st_size
        if size != shard.size:
            return f"{path} has {size:,} bytes instead of {shard.size:,}"
        return None if digest_of(path) == shard.sha256 else f"{path} has changed"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"


def whole(folder: Path) -> Manifest | None:
    """The manifest of a complete folder whose bytes are all as they were written; else None."""
    manifest = Manifest.read(folder)
    if manifest is None or not manifest.complete:
        return None
    return None if any(damage(folder, shard) for shard in manifest.shards) else manifest


def kept_shards(folder: Path) -> list[Shard]:
    """Shards of an earlier build that are whole. What is damaged is named: it is about to be built again."""
    manifest = Manifest.read(folder)
    if manifest is None:
        if (folder / MANIFEST).exists():
            logger.warning("Teacher cache: %s cannot be read: all of it is built again.", folder / MANIFEST)
        return []
    kept = []
    for shard in manifest.shards:
        wrong = damage(folder, shard)
        if wrong is None:
            kept.append(shard)
        else:
            logger.warning("Teacher cache: %s: it is built again.", wrong)
    return kept


def caches(root: Path) -> dict[Path, Manifest | None]:
    """The caches in ``root``, by folder; None for those that lack a manifest that can be read. What else lies
    there is left out."""
    found = {folder: Manifest.read(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    return {folder: it for folder, it in found.items() if it is not None or _looks_like_one(folder)}


def _looks_like_one(folder: Path) -> bool:
    if NAMED.fullmatch(folder.name) is None or folder.is_symlink():
        return False
    return all(OURS.fullmatch(file.name) and not file.is_dir() for file in folder.iterdir())


def bytes_in(folder: Path) -> int:
    """Bytes of all files in a cache's folder, which a run may be building."""
    size = 0
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size
