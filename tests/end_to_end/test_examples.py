"""Both examples and both notebooks run from end to end, offline, and say what is true."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.guide.world import build

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 400_000  # bytes of a committed notebook


def example(name: str, folder: Path, *arguments: str) -> str:
    """What the example prints, run in ``folder``."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


def column(text: str, names: list[str], number: int) -> list[float]:
    """The ``number``-th figure in the lines that open with these names."""
    found = [re.search(rf"^{name} +(.*)$", text, re.MULTILINE) for name in names]
    return [float(line[1].split()[number].rstrip("%").replace(",", "")) for line in found if line]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A working directory in which the hub's names are folders."""
    build(tmp_path)
    return tmp_path


def test_the_example_of_three_methods_tells_them_apart_and_each_learns(tmp_path: Path) -> None:
    text = example("distill_dolly15k", tmp_path, "--local", "--rows", "64", "--output", "out")
    assert re.findall(r"^== (\d)\. ", text, re.MULTILINE) == list("12345678")
    scores = column(text, ["untouched", "KD", "RevKD", "GKD"], 0)
    assert len(scores) == len(set(scores)) == 4
    assert max(scores[1:]) < scores[0]
    assert sorted(p.name for p in (tmp_path / "out" / "students").iterdir()) == [
        "gkd", "kd", "revkd", "untouched",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_that_the_example_prints_ends_in_the_same_student(tmp_path: Path) -> None:
    text = example("distill_dolly15k", tmp_path, "--local", "--rows", "64")
    line = re.search(r"^equivalent command: python run\.py (.*)$", text, re.MULTILINE)
    assert line is not None
    command = [sys.executable, str(ROOT / "run.py"), *shlex.split(line[1])]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=280)
    output = tmp_path / "outputs" / "distill_dolly15k"
    (student,) = output.glob("**/student/model.safetensors")
    assert student.read_bytes() == (output / "students" / "kd" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_example_of_three_methods_reads_the_names_of_the_hub(hub: Path) -> None:
    text = example("distill_dolly15k", hub, "--rows", "16", "--output", "out")
    assert "teacher: gpt2-medium" in text
    assert "### Instruction:" in text
    assert (hub / "out" / "students" / "gkd" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_example_of_three_methods_reads_dolly_from_a_file(tmp_path: Path, shared_data: Path) -> None:
    dolly = str(shared_data / "dolly" / "databricks-dolly-15k.jsonl")
    text = example("distill_dolly15k", tmp_path, "--local", "--data", dolly, "--rows", "16")
    assert "16 rows to train on, 40 held out" in text


@pytest.mark.parametrize(
    "names",
    [pytest.param(["--local"], id="local"), pytest.param([], id="hub", marks=pytest.mark.slow)],
)
def test_the_example_of_lora_trains_few_parameters_and_the_saved_adapter_speaks_alike(
    hub: Path, names: list[str]
) -> None:
    pytest.importorskip("peft")
    text = example("distill_with_lora", hub, *names, "--rows", "48", "--output", "out")
    full, lora = column(text, ["full", "LoRA"], 0)
    assert 0 < lora < full / 10
    perplexities = column(text, ["full", "LoRA"], 3)
    untouched = re.search(r"^student .*perplexity (.*)$", text, re.MULTILINE)
    assert untouched is not None
    if names:  # the learning rate of the hub's models is none for these
        assert max(perplexities) < float(untouched[1])
    again = re.search(r"loaded again (.*), merged into the base (.*)$", text, re.MULTILINE)
    assert again is not None
    assert float(again[1]) == float(again[2]) == perplexities[1]
    adapter, whole = hub / "out" / "students" / "lora", hub / "out" / "students" / "merged"
    assert (adapter / "adapter_model.safetensors").is_file()
    assert (whole / "model.safetensors").is_file()


# ---- notebooks


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """``scripts/make_notebooks.py``."""
    pytest.importorskip("nbclient")
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "scripts" / "make_notebooks.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(notebook: Any) -> list[Any]:
    """All outputs of all cells."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook: Any) -> str:
    """All that its cells print."""
    return "\n".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def headings(notebook: Any) -> list[str]:
    """The numbers of its sections."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [number for text in texts for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]


def test_there_are_the_two_notebooks_of_the_guide() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["dolly15k_distillation_demo", "lora_distillation_demo"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_holds_outputs_of_the_code_that_it_shows(path: Path, maker: ModuleType) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    fresh = maker.cells_of(path.with_suffix(".py").read_text(encoding="utf-8"))
    kinds = [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert kinds == [(cell.cell_type, cell.source) for cell in fresh], (
        "make it again: scripts/make_notebooks.py"
    )
    assert headings(notebook) == [str(number) for number in range(1, 11)]
    assert "`LOCAL = True`" in notebook.cells[0].source
    assert "distil:embedded/teacher" in printed(notebook)
    assert path.stat().st_size < LARGEST
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not of one run from top to bottom"
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    pictures = [o.data["image/png"] for o in outputs(notebook) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 4
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("local", [True, False], ids=["local", "hub"])
def test_a_notebook_runs_from_end_to_end(
    path: Path, local: bool, maker: ModuleType, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "lora" in path.stem:
        pytest.importorskip("peft")
    monkeypatch.setenv("DISTIL_LOCAL", str(int(local)))
    monkeypatch.setenv("DISTIL_ROWS", "24")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own, which keeps pictures
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = maker.notebook_of(path.with_suffix(".py").read_text(encoding="utf-8"))
    maker.execute(notebook, hub)  # raises where a cell fails
    assert ("distil:embedded/teacher" in printed(notebook)) == local
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
