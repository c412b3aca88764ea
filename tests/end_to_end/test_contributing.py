"""CONTRIBUTING's "add a method in ten minutes", to the letter: its files, its command, its contract tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCE = r"\n```\w*\n(.*?)```"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder outside the package that holds the page's files under ``mine/``."""
    files = re.findall(r"<!-- file: (\S+) -->" + FENCE, PAGE, re.DOTALL)
    assert [name for name, _ in files] == ["methods/jeffreys.py", "conf/method/jeffreys.yaml"]
    for name, content in files:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def page_command() -> tuple[dict[str, str], list[str]]:
    """The page's command: what it sets in the environment, and its arguments behind our own run.py."""
    (line,) = re.findall(r"<!-- command -->" + FENCE, PAGE, re.DOTALL)
    (name, value), words = shlex.split(line)[0].split("="), shlex.split(line)[1:]
    assert words[:2] == ["python", "run.py"]
    return {name: value}, [sys.executable, str(ROOT / "run.py"), *words[2:]]


def test_it_composes_from_outside_the_package(written: Path) -> None:
    variables, command = page_command()
    done = run([*command, "--cfg", "job", "--package", "method"], written, **variables)
    assert done.returncode == 0, done.stderr
    assert "name: jeffreys" in done.stdout
    assert "forward_weight: 0.7" in done.stdout
    refused = run([*command, "method.forward_weight=2"], written, **variables)
    assert refused.returncode == 2
    assert "method.forward_weight must lie in [0, 1]" in refused.stderr


def test_it_passes_the_contract(written: Path) -> None:
    tests = [str(path) for path in sorted((ROOT / "tests" / "contract").glob("test_method*.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "jeffreys", *tests]
    done = run(command, ROOT, DISTIL_PLUGINS=str(written / "mine" / "methods"))
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 3


def test_it_runs(written: Path, shared_data: Path) -> None:
    rows = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n)))} for n in range(1, 40)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (written / "rows.jsonl").write_text(text, encoding="utf-8")
    model = shared_data / "models" / "stories260K"
    variables, command = page_command()
    settings = [
        f"model.teacher.path={model}",
        f"model.student.path={model}",
        "model.student.keep_layers=[0,2,4]",
        "data=jsonl",
        "data.train_file=rows.jsonl",
        "trainer.max_steps=2",
        "eval.generation_rows=2",
        "eval.max_new_tokens=4",
    ]
    done = run([*command, *settings], written, **variables)
    assert done.returncode == 0, done.stderr
    (results,) = written.glob("outputs/*/jeffreys-*/results.json")
    assert "student_after" in json.loads(results.read_text(encoding="utf-8"))
