"""Nothing in the package reads a pickle, evaluates text, or loads YAML that builds objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib")
ALLOWED = {
    "distil/engine/checkpoint_reading.py": "the error that torch raises for a pickle which it refuses",
    "distil/sweeps/on_ray.py": "a job's config on its way to a process that this one started",
}
"""Modules that may name pickle, and for what."""


def unsafe(source: str) -> Iterator[str]:
    """What in ``source`` could run code that a file holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if a.name.partition(".")[0] in PICKLES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLES:
            yield f"from {node.module} import"
        elif isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name in ("eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen"):
        yield name
    if name.startswith("yaml.") and name.removeprefix("yaml.") in ("unsafe_load", "full_load", "load_all"):
        yield name
    if name == "yaml.load" and "SafeLoader" not in given.get("Loader", ""):
        yield name
    if name in ("torch.load", "torch_load") and given.get("weights_only") != "True":
        yield f"{name} without weights_only=True"
    if given.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if given.get("shell", "False") != "False":
        yield f"{name} with shell"
    if given.get("trust_remote_code") == "True":
        yield f"{name} with trust_remote_code=True"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import dill as d",
        "from cloudpickle import loads",
        "eval(text)",
        "exec(code, {})",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
    ],
)
def test_what_could_run_code_is_seen(source: str) -> None:
    assert list(unsafe(f"def f(x):\n    return x\n{source}\n"))


@pytest.mark.parametrize(
    "source",
    [
        "yaml.load(text, Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))",
        "yaml.safe_load(text)",
        "torch.load(path, weights_only=True)",
        "model.eval()",
        "np.load(path, allow_pickle=False)",
    ],
)
def test_what_could_not_is_let_be(source: str) -> None:
    assert not list(unsafe(source))


def test_the_package_runs_no_code_from_files() -> None:
    files = sorted([*(ROOT / "distil").rglob("*.py"), *(ROOT / "llm_distil").rglob("*.py"), ROOT / "run.py"])
    assert len(files) > 100
    found = {
        (name, what)
        for file in files
        for what in unsafe(file.read_text(encoding="utf-8"))
        if not ((name := file.relative_to(ROOT).as_posix()) in ALLOWED and what == "import pickle")
    }
    assert found == set()
