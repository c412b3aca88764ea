"""The commands that make other files ones of rows: run, and what they write read."""

from __future__ import annotations

import gzip
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distil.data.converters import to_csv
from distil.data.local import check_file, load_file
from distil.types import InputError

ROWS: list[dict[str, Any]] = [
    {"question": "What is\tit's?", "answer": 'A "thing".'},
    {"question": "q", "answer": "a"},
]
COLUMNS = {key: [row[key] for row in ROWS] for key in ROWS[0]}


def tabbed(path: Path) -> None:
    cells = [
        list(ROWS[0]),
        *([f'"{text.replace(chr(34), chr(34) * 2)}"' for text in row.values()] for row in ROWS),
    ]
    path.write_text("\n".join(map("\t".join, cells)), encoding="utf-8")


def of_json(value: object, indent: int | None = None) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(value, indent=indent), encoding="utf-8")


def zipped(path: Path) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, ROWS)))


@pytest.mark.parametrize(
    ("name", "write", "rows"),
    [
        ("my rows.tsv", tabbed, ROWS),
        ("rows.txt", lambda path: path.write_text("One.\n\n Two. \n"), [{"text": "One."}, {"text": "Two."}]),
        ("rows.jsonl.gz", zipped, ROWS),
        ("rows.json", of_json({"version": 1, "data": ROWS}), ROWS),
        ("rows.json", of_json({"train": ROWS, "test": ROWS[:1]}, indent=2), ROWS),
        ("rows.json", of_json(COLUMNS), ROWS),
        (
            "rows.json",
            of_json(COLUMNS | {"id": [0, 1]}, indent=1),
            [ROWS[0] | {"id": 0}, ROWS[1] | {"id": 1}],
        ),
    ],
)
def test_what_is_told_converts_the_file(
    name: str, write: Callable[[Path], object], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError) as told:
        check_file(f"data.train_file={name}", tmp_path / name)
    command = str(told.value).partition(": python" if "python -c" in str(told.value) else "it: ")
    words = command[2] if "gunzip" in command[2] else f"{sys.executable}{command[2]}"
    subprocess.run(words, shell=True, cwd=tmp_path, check=True)
    (new,) = set(tmp_path.iterdir()) - {tmp_path / name}
    assert [*load_file("new", new)] == rows


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]},
        {"prompt": "q", "context": [{"title": "t", "text": "x"}], "response": "r"},
        {"prompt": ["a", "b", "c"], "response": ["d", "e", "f"], "source": ["x"]},
        {"input_ids": [1, 2], "labels": [1, 2]},
        {"prompt": "a", "response": ["b", "c"]},
        {"prompt": ["a"], "response": ["b"]},
    ],
)
def test_an_object_that_is_a_row_is_one(row: dict[str, Any], tmp_path: Path) -> None:
    of_json(row)(tmp_path / "rows.json")
    assert check_file("x", tmp_path / "rows.json") == list(row)


def test_a_json_file_that_is_nested_too_deeply_is_told_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", encoding="utf-8")
    with pytest.raises(InputError, match="line 1 is nested too deeply"):
        check_file("x", tmp_path / "rows.json")


def test_a_stray_quote_among_tabs_takes_no_rows_along(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text('a\tb\n"Oops\tno\nlast\tone\n', encoding="utf-8")
    code = shlex.split(to_csv(tmp_path / "rows.tsv", "\t"))[5]
    with open(tmp_path / "rows.tsv", encoding="utf-8") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True)
    assert done.returncode != 0
    assert "unexpected end of data" in done.stderr


@pytest.mark.parametrize("name", ["rows.docx", "rows", "rows.xml"])
def test_kinds_that_nothing_is_known_of(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text")
    with pytest.raises(InputError, match=r"Known: .*\.parquet\.$"):
        check_file("x", tmp_path / name)


def test_an_address_is_no_file() -> None:
    address = "https://example.org/rows.jsonl"
    with pytest.raises(InputError, match=r"is no file of this machine\. Download it"):
        check_file(f"data.train_file={address}", Path(address))
