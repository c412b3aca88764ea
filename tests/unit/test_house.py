"""The house keeps its rules: packaging, tested versions, floors, light imports, a clean tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from distil import run_files

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "peft",
    "matplotlib",
    "wandb",
    "pandas",
)
LIGHT = (
    "types",
    "registry",
    "losses",
    "divergences",
    "cli",
    "identity",
    "engine.checkpoints",
    "tracking",
)
"""Modules that composing a config may import, beside the folders that registries scan."""
ON_SEVERAL_FLOORS = ("cards", "config", "engine", "processes", "products", "sweeps", "system")
"""Packages of which each module is named in the layers."""
LIGHT_FOLDERS = ("config", "methods", "data", "adapters", "metrics", "report", "verbs", "system")


def tracked() -> list[str]:
    """Files that git has or would take, by name."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).is_file()]


def requirement_names(lines: list[str]) -> set[str]:
    found = {re.split(r"[\[<>=!~ ;]", line, maxsplit=1)[0] for line in lines}
    return {name.lower().replace("_", "-") for name in found}


def declared() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"]
    return [*PROJECT["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]


def test_every_dependency_has_a_floor_and_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for line in declared():
        if line.startswith("distil-runner["):
            continue
        assert re.search(r">=|==", line), f"{line} has no floor"
        assert re.search(rf'"{re.escape(line)}"\]?,?\s+# \S', text), f"{line} has no reason beside it"


def test_every_dependency_has_a_tested_version() -> None:
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in pins), (
        "name==version only"
    )
    assert "torch==2.13.0" in pins
    missing = requirement_names(declared()) - requirement_names(pins) - {"distil-runner"}
    assert not missing


def test_every_make_target_is_listed_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    shown = subprocess.run(
        ["make", "-C", ROOT, "-s", "help"], capture_output=True, text=True, check=True
    ).stdout
    assert targets == {line.split()[1] for line in shown.splitlines() if line.startswith("  make ")}
    assert {"run", "test", "test-all", "lint", "format", "clean"} <= targets


def modules() -> set[str]:
    found = set()
    for file in (ROOT / "distil").rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found.add(".".join(part for part in parts if part != "__init__"))
    return found


def test_every_module_stands_on_a_floor() -> None:
    layers = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")["layers"]
    floors = {name.strip(" ()") for layer in layers for name in layer.split("|")}
    assert all("(" not in layer for layer in layers), "optional layers hide a module that was renamed"
    homeless = {
        module
        for module in modules() - {"distil", *(f"distil.{name}" for name in ON_SEVERAL_FLOORS)}
        if not any(module == floor or module.startswith(f"{floor}.") for floor in floors)
    }
    assert not homeless, "name them in the layers of pyproject.toml"


IMPORT_ALL = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ImportError(f"{name} is heavy: import it inside the function that needs it")
sys.meta_path.insert(0, Block())
import importlib
for name in sys.argv[2].split(","):
    importlib.import_module(name)
"""


def test_what_a_config_needs_imports_nothing_heavy() -> None:
    light = tuple(f"distil.{name}" for name in LIGHT_FOLDERS)
    names = {f"distil.{name}" for name in LIGHT} | {name for name in modules() if name.startswith(light)}
    # Metric modules are loaded by `evaluate` itself.
    names = {name for name in names if not name.startswith("distil.metrics.modules.")}
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(HEAVY), ",".join(sorted(names))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_system_that_it_does_not_run_on_is_told() -> None:
    command = [sys.executable, "-c", "import sys; sys.platform = 'win32'; import distil.cli"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "On Windows, install it in WSL" in done.stderr.splitlines()[-1]


def test_the_public_package_defines_nothing_it_does_not_export() -> None:
    import llm_distil

    assert all(hasattr(llm_distil, name) for name in llm_distil.__all__)


# Folders of one machine, and where its packages come from: an address that ends in "simple", an index given
# by hand.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:work|root|home/\w+)/|/tmp/\w+|https?://[^\s\"']+/simple\b|--(?:\w+-)?index[-]url"
)


def test_no_text_names_a_path_or_a_registry_of_one_machine() -> None:
    for name in tracked():
        if name == "tests/unit/test_house.py" or (ROOT / name).suffix in {".safetensors", ".png"}:
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        found = PRIVATE.search(text)
        assert found is None, f"{name} names {found[0] if found else ''}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (built,) = folder.glob("distil_runner-*.whl")
    return built


def test_the_wheel_carries_everything_once(wheel: Path) -> None:
    names = tracked()
    with zipfile.ZipFile(wheel) as archive:
        held = [name for name in archive.namelist() if ".dist-info/" not in name]
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "distil = distil.cli:main" in archive.read(entry).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
        for name in (name for name in names if name.startswith("conf/")):
            assert archive.read(f"distil/{name}") == (ROOT / name).read_bytes()
    expected = {name for name in names if name.startswith(("distil/", "llm_distil/"))}
    expected |= {f"distil/{name}" for name in names if name.startswith("conf/")}
    assert set(held) == expected
    assert len(held) == len(set(held))
    assert {"distil/py.typed", "llm_distil/py.typed", "distil/conf/config.yaml"} <= set(held)


COMPOSE = "import sys; from distil.cli import main; sys.exit(main(['run', '--cfg', 'job']))"


def test_what_is_installed_composes_the_same_config(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    shown = []
    for place in (tmp_path / "site", ROOT):
        where = {**os.environ, "PYTHONPATH": str(place)}
        command = [sys.executable, "-c", COMPOSE]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=where)
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    assert shown[0] == shown[1]
    assert "method:" in shown[0]


def test_the_pages_name_what_a_run_leaves() -> None:
    names = {value for key, value in vars(run_files).items() if key.isupper() and isinstance(value, str)}
    usual = names - {run_files.BAD_ROWS, run_files.BROKEN_STEPS}
    assert len(usual) >= 13
    for page in ("README.md", "docs/quick-start.md"):
        assert [name for name in usual if name not in (ROOT / page).read_text(encoding="utf-8")] == []
