"""How a package that not everybody needs is installed: with an extra of ours, from where ours came."""

from __future__ import annotations

import shlex
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2]
"""The clone, where this code runs from one."""


def install(extra: str) -> str:
    """The command that brings the packages of ``extra``: out of the clone that runs, else out of an index."""
    if not (FOLDER / "pyproject.toml").is_file():
        return f"pip install 'distil-runner[{extra}]'"
    where = "." if Path.cwd() == FOLDER else str(FOLDER)
    return f"pip install -e {shlex.quote(f'{where}[{extra}]')}"
