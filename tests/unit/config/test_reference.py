"""The page of config keys is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from distil.config.schema import MethodConfig
from distil.config.store import schemas
from distil.methods.base import METHODS

ROOT = Path(__file__).resolve().parents[3]


def test_page_is_up_to_date() -> None:
    """`make docs` writes it."""
    script = ROOT / "scripts" / "generate_config_reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rows() -> dict[str, list[list[str]]]:
    """Key to the rows of the page that begin with it, as cells."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    found: dict[str, list[list[str]]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if line.startswith("| `"):
            found.setdefault(cells[0].strip("`"), []).append(cells)
    return found


def leaves(config: type[Any], prefix: str = "") -> Iterator[str]:
    """Every key that ``config`` gives a command line."""
    hints = get_type_hints(config)
    for field in fields(config):
        if field.name == "name" and prefix:
            continue
        kind = hints[field.name]
        if is_dataclass(kind):
            yield from leaves(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_every_key_is_there_with_its_default() -> None:
    known = rows()
    for path, config in schemas().items():
        if path == "experiment":
            continue
        for key in leaves(config, f"{path.partition('/')[0]}."):
            assert key in known, key
    assert {"name", "seed", "output_dir"} <= set(known)
    gkd = METHODS.get("gkd").config
    assert gkd is not None
    shown = {cells[2].strip("`") for cells in known["method.temperature"]}
    assert shown == {str(gkd().temperature), str(MethodConfig(name="kd").temperature)}


def test_every_row_has_the_cells_of_its_head() -> None:
    """GitHub cuts a row at every bar that is not escaped, in code too."""
    assert {len(cells) for found in rows().values() for cells in found} == {2, 5}


def test_every_number_has_a_unit() -> None:
    for key, found in rows().items():
        for _, kind, *rest in (cells for cells in found if len(cells) == 5):
            if {"int", "float"} & set(kind.split(" or ")):
                assert rest[1], key
