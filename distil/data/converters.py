"""How a file of another form is made one of rows that is read here: a command, told beside the refusal."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

LINES = 'import json, sys; [print(json.dumps({"text": line.strip()})) for line in sys.stdin if line.strip()]'
HOLDERS = ("data", "dataset", "examples", "instances", "items", "records", "rows", "samples", "train", "test")
"""What the key of an object is called that holds rows, where it is not the only one."""
TURNS = ("role", "from")
"""Keys of a message: a list of such objects is a conversation, which is one row."""


def to_csv(path: Path, delimiter: str) -> str:
    """For a file whose columns are divided by ``delimiter``."""
    reader = f"csv.reader(sys.stdin, delimiter={json.dumps(delimiter)}, strict=True)"
    return _by_python(f"import csv, sys; csv.writer(sys.stdout).writerows({reader})", path, "new.csv")


def of_kind(path: Path) -> str:
    """For a file of a kind that its name tells; empty for others."""
    kind, name = path.suffix.lower(), shlex.quote(str(path))
    if kind in (".tsv", ".tab"):
        return to_csv(path, "\t")
    if kind in (".gz", ".zip"):
        return f"Unpack it: {'gunzip -k' if kind == '.gz' else 'unzip'} {name}"
    if kind in (".xls", ".xlsx", ".ods"):
        return "Save the table as CSV."
    if kind in (".txt", ".md"):
        return f"Each line a row of text: {_by_python(LINES, path, 'new.jsonl', opening='')}"
    return ""


def of_object(path: Path, value: dict[str, Any]) -> str:
    """For a JSON file that is one object and holds the rows below a key, or by columns; empty for others."""
    lists = {key: each for key, each in value.items() if isinstance(each, list) and each}
    for key, rows in lists.items():
        if (key.lower() in HOLDERS or len(value) == 1) and are_rows(rows):
            taken = f"import json, sys; json.dump(json.load(sys.stdin)[{json.dumps(key)}], sys.stdout)"
            return f"rows lie below {json.dumps(key)}. {_by_python(taken, path, 'new.json')}"
    texts = [each for each in lists.values() if all(isinstance(cell, str) for cell in each)]
    lengths = {len(each) for each in lists.values()}
    if len(lists) == len(value) and texts and len(lengths) == 1 and lengths != {1}:
        turned = "json.dump([dict(zip(c, row)) for row in zip(*c.values())], sys.stdout)"
        made = _by_python(f"import json, sys; c = json.load(sys.stdin); {turned}", path, "new.json")
        return f"it holds a list for each column. {made}"
    return ""


def are_rows(value: object) -> bool:
    """Whether ``value`` is a list of rows, and no conversation, whose messages are objects too."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, dict) and not set(TURNS) & set(row) for row in value)
    )


def _by_python(code: str, path: Path, new: str, opening: str = "This converts it: ") -> str:
    return f"{opening}python -c {shlex.quote(code)} < {shlex.quote(str(path))} > {new}"
