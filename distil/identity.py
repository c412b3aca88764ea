"""What makes two runs the same run: a short hash, and the folder that carries it.

Same config, same contents of the files it names, same code: same identity. So the same command finds its run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from distil.config.schema import ExperimentConfig
from distil.effect import with_effect
from distil.run_files import status_of
from distil.system.redact import is_secret
from distil.types import InputError

LENGTH = 10
"""Hex digits of an identity."""

LONGEST_NAME, LONGEST_LABEL = 200, 48
"""Bytes of a folder that the user names, letters of an option in a run's: file systems take 255 bytes."""

WHOLE_FILE_BYTES = 256 * 2**20
BLOCKS = 64
BLOCK_BYTES = 2**20


def run_identity(
    config: Mapping[str, Any], fingerprints: Mapping[str, str], code: str, ignored: Collection[str] = ()
) -> str:
    """Ten hex digits that are equal exactly where two runs compute the same.

    Args:
        config: the resolved config as nested dicts (``dataclasses.asdict``).
        fingerprints: of the files behind config values, by dotted key (``data.train_file``). One takes the
            place of the value at its key: a moved file is the same file. Other names are simply added.
        code: ``environment.code_version()``.
        ignored: dotted keys that this run does not use (``method.temperature``, ``rollouts``).
    """
    kept = {
        key: value
        for key, value in with_effect(config, ignored).items()
        if not is_secret(key) and key not in fingerprints
    }
    whole = {"config": kept, "files": dict(fingerprints), "code": code}
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:LENGTH]


def fingerprint_path(path: str | Path) -> str:
    """Sixteen hex digits of the contents of a file or folder, wherever it lies. Raises FileNotFoundError.

    Files up to 256 MiB are hashed whole; of larger ones the size and 64 evenly spaced blocks of 1 MiB, first
    and last among them: weights that were trained differ everywhere. Hidden files and caches do not count.
    """
    root = Path(path)
    if not root.is_dir():
        return _file_digest(root).hex()[:16]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*")):
        name = file.relative_to(root)
        if file.is_dir() or any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            continue
        digest.update(f"{name.as_posix()}\0".encode("utf-8", "surrogateescape"))
        digest.update(_file_digest(file))
    return digest.hexdigest()[:16]


def fingerprint_settings(settings: Mapping[str, Any]) -> str:
    """Sixteen hex digits of JSON whose lists are sets: PEFT writes them in an order that changes from process
    to process."""
    sets = {
        key: sorted(value, key=str) if isinstance(value, list) else value for key, value in settings.items()
    }
    return hashlib.sha256(json.dumps(sets, sort_keys=True).encode()).hexdigest()[:16]


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Sixteen hex digits of the token ids of ``rows`` and of which are scored: are two runs comparable?"""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["input_ids"], row["labels"]]).encode())
    return digest.hexdigest()[:16]


def run_folder(config: ExperimentConfig, identity: str) -> Path:
    """The folder of this run: ``<output_dir>/<name>/<method>-<model>-<peft>-s<seed>-<identity>``.

    Reruns stand beside it as ``…-r2``, ``…-r3``. With ``run.rerun`` this is the newest folder if it is
    unfinished, else a new one; without, the newest that is done, else the newest, else the plain name.
    """
    parts = (config.method.name, config.model.name, config.peft.name)
    label = "-".join(re.sub(r"[^\w.+]+", "_", part)[:LONGEST_LABEL] for part in parts)
    first = Path(config.output_dir) / checked_name(config.name) / f"{label}-s{config.seed}-{identity}"
    folders = [first]
    while (following := first.with_name(f"{first.name}-r{len(folders) + 1}")).exists():
        folders.append(following)
    if not first.exists():
        return first
    done = [folder for folder in folders if status_of(folder) == "done"]
    if config.run.rerun:
        return following if folders[-1] in done else folders[-1]
    return done[-1] if done else folders[-1]


def checked_name(name: str) -> Path:
    """``name`` as a path below ``output_dir``. Raises InputError for one that would lie elsewhere."""
    path = Path(name)
    # Hidden folders are for caches; what no terminal shows is no name.
    good = path.parts and name.isprintable() and not path.is_absolute()
    if not good or any(part.startswith(".") or len(part.encode()) > LONGEST_NAME for part in path.parts):
        raise InputError(f"name={name} must be a folder below output_dir, such as name=first_try.")
    return path


def _file_digest(file: Path) -> bytes:
    size = file.stat().st_size
    with open(file, "rb") as stream:
        if size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(stream, "sha256").digest()
        digest = hashlib.sha256(f"{size}\0".encode())
        for block in range(BLOCKS):
            stream.seek(block * (size - BLOCK_BYTES) // (BLOCKS - 1))
            digest.update(stream.read(BLOCK_BYTES))
        return digest.digest()
