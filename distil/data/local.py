"""Local data files: a cheap look with the standard library, and the load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distil.data import converters
from distil.data.base import MalformedRow, place_of
from distil.data.csv_rows import read_csv
from distil.data.text_files import Line, TextRows, read_json
from distil.registry import nearest
from distil.system.quiet import quiet_datasets
from distil.system.scratch import scratch
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
"""File extension to the builder of ``datasets`` that reads it."""
LOOK_BYTES = 64 * 2**20
"""How much of a text file ``check_file`` reads; what is wrong beyond is found when it is loaded."""
SPLIT_STEMS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def shows_all_columns(path: Path) -> bool:
    """Whether ``check_file`` sees every column of a text file: lines of JSON may bring new ones up to the
    last, which it does not read of large files."""
    return path.suffix.lower() == ".csv" or path.stat().st_size <= LOOK_BYTES


def check_file(
    where: str, path: Path, look_bytes: int | None = LOOK_BYTES, *, skip: bool = False
) -> list[str] | None:
    """The columns of a data file, or None for Parquet (which the standard library cannot read).

    ``skip``: malformed rows are no reason to refuse a text file, as long as there are others.
    Raises InputError, opened by ``where`` (``data.train_file=my.jsonl``), for a file that is missing, empty
    or of the wrong shape; MalformedRow names the first bad line of a text file.
    """
    if not path.exists():
        if "://" in where:
            raise InputError(
                f"{where} is no file of this machine. Download it, and give the way to the file."
            )
        raise InputError(f"{where}: no such file.{_beside(path)} Give the path of a file that exists.")
    if path.is_dir():
        raise InputError(f"{where} is a folder. Give a file.")
    if path.suffix.lower() not in FORMATS:
        told = f"{where}: unknown kind of file {path.suffix!r}. Known: {', '.join(FORMATS)}."
        raise InputError(f"{told} {converters.of_kind(path)}".rstrip())
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{where} is empty. Give a file with rows.")
        if FORMATS[path.suffix.lower()] == "parquet":
            _check_parquet(where, path)
            return None
        columns: dict[str, None] = {}
        read = 0
        fault = ""
        for line in _lines(where, path, skip):
            fault = fault or (f"{place_of(line.number, 0)} {line.fault}" if line.fault else "")
            columns.update(dict.fromkeys(line.row))
            read += line.size
            if look_bytes is not None and read > look_bytes:
                return list(columns) or None  # of malformed rows alone nothing is known
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}.") from error
    if not columns:
        what = f"only malformed rows: {fault}" if fault else "no rows"
        raise InputError(f"{where} holds {what}. Give a file with rows.")
    return list(columns)


def _beside(path: Path) -> str:
    """The data file beside ``path`` that may have been meant, as a question; empty where there is none."""
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in FORMATS]
    except OSError:
        return f" Nor is there a folder {path.parent}." if not path.parent.exists() else ""
    names = [name for name in names if _for_evaluation(name) == _for_evaluation(path.name)]
    near = nearest(path.stem, [Path(name).stem for name in names])
    meant = sorted(
        (name for name in names if Path(name).stem == near), key=lambda name: Path(name).suffix != path.suffix
    )
    return f" Did you mean {path.parent / meant[0]}?" if meant else ""


def _for_evaluation(name: str) -> bool:
    """Whether a file is called after rows to evaluate on: those are never taken for rows to train on."""
    words = {*re.split(r"[^a-z]+", name.lower())}
    return bool(words & {"eval", *SPLIT_STEMS["validation"], *SPLIT_STEMS["test"]})


def _lines(where: str, path: Path, skip: bool) -> Iterator[Line]:
    """The rows of a text file. Raises MalformedRow for the first that is none, unless they are skipped."""
    read = read_csv if FORMATS[path.suffix.lower()] == "csv" else read_json
    for row, line in enumerate(read(where, path)):
        if line.fault is not None and not skip:
            example = ' Each line holds one row, such as {"prompt": "…", "response": "…"}.'
            shape = example if line.number and read is read_json else ""
            raise MalformedRow(f"{where}: {place_of(line.number, row)} {line.fault}.{shape}")
        yield line


def _check_parquet(where: str, path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 4))
        tail = file.read(4)
    if size < 12 or head != b"PAR1" or tail != b"PAR1":
        raise InputError(f"{where} is not a complete Parquet file. Write it again.")


def load_file(where: str, path: Path, *, skip: bool = False) -> TextRows | Dataset:
    """The rows of a data file, in memory: nothing is left beside it or in the cache of ``datasets``.

    Cells of CSV are text as written (``NA`` and ``007`` too). ``skip``: malformed rows of text files are kept
    as such (`TextRows.faults`). Raises InputError like ``check_file``.
    """
    columns = check_file(where, path, 0, skip=skip)
    if columns is None and FORMATS[path.suffix.lower()] == "parquet":
        return _load_parquet(where, path)
    try:
        rows = TextRows.of(_lines(where, path, skip))
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}.") from error
    if not len(rows):
        raise InputError(f"{where} holds no rows. Give a file with rows.")
    return rows


def _load_parquet(where: str, path: Path) -> Dataset:
    from datasets import Dataset, load_dataset

    try:
        with scratch("data") as cache, quiet_datasets():
            rows = load_dataset(
                "parquet", data_files=str(path), split="train", cache_dir=str(cache), keep_in_memory=True
            )
        assert isinstance(rows, Dataset)
        rows.data.table.validate(full=True)
    except Exception as error:  # datasets wraps whatever its readers raise
        cause = error.__cause__ or error
        raise InputError(
            f"{where} cannot be read: {(str(cause).splitlines() or [repr(cause)])[0]}"
        ) from error
    if not len(rows):
        raise InputError(f"{where} holds no rows. Give a file with rows.")
    return rows


def split_files(where: str, folder: Path) -> dict[str, Path]:
    """The data files of a folder by split: ``train.*``, ``validation.*`` (valid, val, dev), ``test.*``.

    A single file of another name is the training split. Raises InputError where no training file can be told,
    and for two files of one split.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in FORMATS)
    found: dict[str, Path] = {}
    for split, stems in SPLIT_STEMS.items():
        matches = [file for file in files if file.stem.lower() in stems]
        if len(matches) > 1:
            names = ", ".join(file.name for file in matches)
            raise InputError(
                f"{where} has several {split} files: {names}. Leave one, or name it: data=jsonl "
                f"data.{split}_file=…."
            )
        if matches:
            found[split] = matches[0]
    if not found and len(files) == 1:
        return {"train": files[0]}
    if "train" not in found:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(
            f"{where} has no training file: train.jsonl (or .json, .csv, .parquet) is wanted. "
            f"Its data files: {names}."
        )
    return found
