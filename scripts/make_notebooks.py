"""Make notebooks/*.ipynb from notebooks/*.py: cells split at ``# %%``, run for real, outputs kept.

python scripts/make_notebooks.py                    # all of them, offline, on the models that ship with us
python scripts/make_notebooks.py lora               # those with "lora" in their name
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
MARK = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)
TIMEOUT = 1200  # seconds a cell


def cells_of(source: str) -> list[Any]:
    """The cells of a script in percent format, without outputs."""
    v4: Any = nbformat.v4
    pieces = MARK.split(source)[1:]
    cells = []
    for number, (kind, text) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
        text = text.strip("\n")
        if kind == "markdown":
            lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines()]
            cell = v4.new_markdown_cell("\n".join(lines))
        else:
            cell = v4.new_code_cell(text)
        cell.id = f"cell-{number}"  # drawn at random otherwise: every run a new diff
        cells.append(cell)
    return cells


def notebook_of(source: str) -> Any:
    """A notebook without outputs."""
    v4: Any = nbformat.v4
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells_of(source), metadata={"kernelspec": kernel})


def execute(notebook: Any, folder: Path) -> None:
    """Run ``notebook`` in ``folder``, outputs into it. Raises CellExecutionError where a cell fails."""
    client: Any = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata.pop("language_info", None)  # the version of Python that happened to be here
    for cell in notebook.cells:
        cell.metadata.clear()  # when it ran


def take_warnings(notebook: Any) -> list[str]:
    """Take out what the cells wrote to stderr: libraries' words on this machine, with its paths."""
    taken = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        taken += [output.text for output in outputs if output.get("name") == "stderr"]
        if outputs:
            cell.outputs = [output for output in outputs if output.get("name") != "stderr"]
    return taken


def main() -> None:
    """Make the notebooks that the argument names, or all."""
    os.environ.update(DISTIL_LOCAL="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for script in sorted(FOLDER.glob("*.py")):
        if wanted not in script.name:
            continue
        notebook = notebook_of(script.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        for text in take_warnings(notebook):
            print(f"left out of {script.stem}: {text.strip()}", file=sys.stderr)
        target = script.with_suffix(".ipynb")
        write: Any = nbformat.write
        write(notebook, target)
        print(f"{target.name}: {target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
