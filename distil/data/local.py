"""Local data files: a cheap look with the standard library, and the load through ``datasets``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.scratch import scratch
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
"""File extension to the builder of ``datasets`` that reads it."""
LOOK_BYTES = 64 * 2**20
"""How much of a text file ``check_file`` reads; what is wrong beyond is found when it is loaded."""
SPLIT_STEMS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def check_file(where: str, path: Path, look_bytes: int | None = LOOK_BYTES) -> list[str] | None:
    """The columns of a data file, or None for Parquet (which the standard library cannot read).

    Raises InputError, opened by ``where`` (``data.train_file=my.jsonl``), for a file that is missing, empty
    or of the wrong shape; for text files it names the first bad line.
    """
    if not path.exists():
        raise InputError(f"{where}: no such file. Give the path of a file that exists.")
    if path.is_dir():
        raise InputError(f"{where} is a folder. Give a file.")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{where}: unknown kind of file {path.suffix!r}. Known: {', '.join(FORMATS)}.")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{where} is empty. Give a file with rows.")
        builder = FORMATS[path.suffix.lower()]
        if builder == "parquet":
            _check_parquet(where, path)
            return None
        columns = _check_csv(where, path) if builder == "csv" else _check_json(where, path, look_bytes)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it."
        ) from error
    return columns


def _check_json(where: str, path: Path, look_bytes: int | None) -> list[str]:
    with open(path, encoding="utf-8-sig") as file:
        start = file.read(4096).lstrip()[:1]
    if start == "[":
        return _check_array(where, path)
    columns: dict[str, None] = {}
    read = 0
    for number, line in _lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InputError(
                f"{where}: line {number} is not a JSON object: {_snippet(line)}. Each line holds one row, "
                'such as {"prompt": "…", "response": "…"}.'
            )
        columns.update(dict.fromkeys(value))
        read += len(line)
        if look_bytes is not None and read > look_bytes:
            break
    if not columns:
        raise InputError(f"{where} holds no rows. Give a file with rows.")
    return list(columns)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _check_array(where: str, path: Path) -> list[str]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error.msg} in line {error.lineno}.") from error
    except RecursionError as error:
        raise InputError(f"{where} is not a list of rows: it is nested too deeply.") from error
    if not rows:
        raise InputError(f"{where} holds no rows. Give a file with rows.")
    bad = next((index for index, row in enumerate(rows) if not isinstance(row, dict)), None)
    if bad is not None:
        raise InputError(f"{where}: row {bad} is not a JSON object: {_snippet(json.dumps(rows[bad]))}.")
    return list(dict.fromkeys(column for row in rows for column in row))


def _check_csv(where: str, path: Path) -> list[str]:
    csv.field_size_limit(2**31 - 1)  # a row may hold a long document
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if not any(name.strip() for name in header):
            raise InputError(f"{where} has no header. Its first line must name the columns.")
        if odd := [
            name or "a column without a name" for name in header if not name or header.count(name) > 1
        ]:
            raise InputError(
                f"{where}: its first line names {odd[0]} (column names must differ, none empty)."
            )
        rows = 0
        for row in islice(reader, 100_000):
            if not row:
                continue
            rows += 1
            if len(row) != len(header):
                raise InputError(
                    f"{where}: line {reader.line_num} has {len(row)} fields, the header {len(header)}. "
                    "Fields that hold commas or line breaks want quotes."
                )
    if not rows:
        raise InputError(f"{where} has a header and no rows. Give a file with rows.")
    return header


def _check_parquet(where: str, path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 4))
        tail = file.read(4)
    if size < 12 or head != b"PAR1" or tail != b"PAR1":
        raise InputError(f"{where} is not a complete Parquet file. Write it again.")


def load_file(where: str, path: Path) -> Dataset:
    """The rows of a data file, in memory: nothing is left beside it or in the cache of ``datasets``.

    Cells of CSV are text as written (``NA`` and ``007`` too). Raises InputError like ``check_file``.
    """
    columns = check_file(where, path)
    from datasets import Dataset, Features, Value, load_dataset

    builder = FORMATS[path.suffix.lower()]
    options: dict[str, Any] = {"data_files": str(path), "split": "train", "keep_in_memory": True}
    if builder == "csv":
        options |= {
            "features": Features({name: Value("string") for name in columns or []}),
            "keep_default_na": False,
        }
    try:
        with scratch("data") as cache, quiet_datasets():
            rows = load_dataset(builder, cache_dir=str(cache), **options)
    except Exception as error:  # datasets wraps whatever its readers raise
        check_file(where, path, look_bytes=None)
        cause = error.__cause__ or error
        raise InputError(f"{where} cannot be read: {str(cause).splitlines()[0]}") from error
    assert isinstance(rows, Dataset)
    for name in [name for name, kind in rows.features.items() if "timestamp" in str(kind)]:
        if (
            builder == "json"
        ):  # Arrow reads a column of dates as times, whose spelling is lost; JSON has only text
            texts = [row.get(name) for row in _json_rows(path)]
            rows = rows.remove_columns(name).add_column(name, texts)
    if not len(rows):
        raise InputError(f"{where} holds no rows. Give a file with rows.")
    return rows


def _json_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON or JSON Lines file that ``check_file`` has passed."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for _, line in _lines(path)]


class quiet_datasets:
    """Context without the progress bars of ``datasets``, which this project does not want for local files."""

    def __enter__(self) -> None:
        from datasets.utils import are_progress_bars_disabled, disable_progress_bars

        self._were_disabled = are_progress_bars_disabled()
        disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        from datasets.utils import enable_progress_bars

        if not self._were_disabled:
            enable_progress_bars()


def split_files(where: str, folder: Path) -> dict[str, Path]:
    """The data files of a folder by split: ``train.*``, ``validation.*`` (valid, val, dev), ``test.*``.

    A single file of another name is the training split. Raises InputError where no training file can be told.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in FORMATS)
    found: dict[str, Path] = {}
    for split, stems in SPLIT_STEMS.items():
        matches = [file for stem in stems for file in files if file.stem.lower() == stem]
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


def _snippet(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 60 else text[:60] + "…")
