"""The wheel, installed in an environment that knows nothing of the checkout, works from any folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin/`` of a fresh environment that holds the wheel, and nothing else of ours.

    Its dependencies are this environment's, by a path file: those that name the checkout are not read there.
    """
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, capture_output=True, text=True, check=True)
    (wheel,) = folder.glob("distil_runner-*.whl")
    fresh = folder / "fresh"
    venv.create(fresh, with_pip=False)
    python = fresh / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(wheel)], capture_output=True, text=True, check=True)
    (packages,) = fresh.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return fresh / "bin"


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DISTIL"))
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


WHERE = """
import json
import distil, llm_distil
from distil.config.help import conf_folder
from distil.models.sources import ASSETS
llm_distil.KnowledgeDistillation
places = [distil.__file__, llm_distil.__file__, str(conf_folder()), str(ASSETS)]
print(json.dumps([*places, llm_distil.__version__]))
"""


def test_the_library_is_imported_from_any_folder(installed: Path, tmp_path: Path) -> None:
    done = run([str(installed / "python"), "-c", WHERE], tmp_path)
    assert done.returncode == 0, done.stderr
    *places, version = json.loads(done.stdout)
    for place in places:
        assert Path(place).is_relative_to(installed.parent), place
        assert Path(place).exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version == project["version"]


def test_distil_run_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    arguments = [
        "run", "method=gkd", "trainer.max_steps=2", "trainer.per_device_train_batch_size=4",
        "data.max_train_rows=32", "data.max_eval_rows=8", "rollouts.max_new_tokens=4",
        "eval.generation_rows=2", "eval.max_new_tokens=4",
    ]  # fmt: skip
    done = run([str(installed / "distil"), *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("outputs/*/gkd-*")
    assert json.loads((folder / "status.json").read_text(encoding="utf-8"))["status"] == "done"
    assert (folder / "student" / "model.safetensors").is_file()
    assert "distil run" in (folder / "student" / "README.md").read_text(encoding="utf-8")
    again = run([str(installed / "distil"), *arguments], tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(list(tmp_path.glob("outputs/*/gkd-*"))) == 1
    printed = run([str(installed / "distil"), "report", str(folder)], tmp_path)
    assert printed.returncode == 0, printed.stderr


def test_a_plain_install_pulls_nothing_for_tests_benchmarks_docs_or_notebooks(installed: Path) -> None:
    """Neither by itself nor through what it pulls."""
    (info,) = installed.parent.glob("lib/python*/site-packages/distil_runner-*.dist-info")
    required = metadata.PathDistribution(info).requires or []
    pulled = closure(required)
    assert {"torch", "transformers", "hydra-core", "jinja2"} <= pulled
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert {"dev", "docs", "notebooks", "adapters"} <= set(extras)
    unwanted = {name_of(line) for lines in extras.values() for line in lines} - {"distil-runner"}
    assert {"pytest", "trl", "matplotlib", "mkdocs", "peft"} <= unwanted
    assert not pulled & unwanted
    assert not [
        name for name in pulled if re.match(r"pytest|jupyter|ipy|nb(client|format|convert)|mkdocs", name)
    ]


def name_of(requirement: str) -> str:
    return str(canonicalize_name(Requirement(requirement).name))


def closure(requirements: Iterable[str]) -> set[str]:
    """Every distribution that installing ``requirements`` brings here, their extras included."""
    found: set[tuple[str, frozenset[str]]] = set()
    left = [(Requirement(line), frozenset[str]()) for line in requirements]
    while left:
        requirement, asked = left.pop()
        if requirement.marker is not None and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in asked or {""}
        ):
            continue
        node = (str(canonicalize_name(requirement.name)), frozenset(requirement.extras))
        if node in found:
            continue
        found.add(node)
        try:
            needs = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:  # for another platform's accelerator
            continue
        left += [(Requirement(line), node[1] | {""}) for line in needs]
    return {name for name, _ in found}
