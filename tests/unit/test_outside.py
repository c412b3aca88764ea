"""No name leads out of output_dir, and nothing outside is removed or written through a link."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil import cli
from distil.adapters.none import NoneConfig
from distil.config.schema import ExperimentConfig, ModelConfig
from distil.data.embedded import EmbeddedDataConfig
from distil.engine import checkpoints
from distil.identity import run_folder
from distil.methods.kd import KDConfig
from distil.system.files import remove, write_text
from distil.system.locks import take
from distil.types import InputError

PARTS = st.sampled_from(["..", ".", "/", "a", "~", "\\", "\0", "\n", "..a", "é", " ", "x" * 300, "\ud800"])


def folder_of(output: Path, name: str, model: str = "m", method: str = "kd") -> Path:
    config = ExperimentConfig(
        name=name,
        output_dir=str(output),
        method=KDConfig(name=method),
        model=ModelConfig(model),
        peft=NoneConfig(),
        data=EmbeddedDataConfig(),
    )
    return run_folder(config, "0123456789")


@given(name=st.lists(PARTS, max_size=5).map("".join), model=st.lists(PARTS, max_size=5).map("".join))
def test_a_run_lies_below_the_output_folder(name: str, model: str) -> None:
    """Its folder is a name of the length that file systems take, and can be made; or it is refused by key."""
    output = Path("/nowhere/outputs")
    try:
        folder = folder_of(output, name, model, method=model or "kd")
    except InputError:
        with pytest.raises(InputError, match=r"^name="):
            folder_of(output, name)
        return
    inside = folder.relative_to(output)
    assert ".." not in inside.parts
    assert len(inside.parts) >= 2
    assert all(0 < len(part.encode()) <= 255 for part in inside.parts[:-1])
    assert len(inside.parts[-1]) <= 255
    assert folder.resolve().is_relative_to(output)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/nowhere/x", ".", "..", "", ".teacher_cache", "a/.b"])
@pytest.mark.parametrize("sweep", [False, True])
def test_the_command_says_so(
    name: str,
    sweep: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "seed=0,1"] if sweep else []
    assert cli.main(["run", f"name='{name}'", *words]) == 2
    assert f"name={name} must be a folder below output_dir" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert not (tmp_path.parent / "x").exists()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's own, with a file."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("x", encoding="utf-8")
    return folder


def test_what_is_removed_is_the_link(outside: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "link").symlink_to(outside)
    (tmp_path / "link").symlink_to(outside)
    remove(inside)
    remove(tmp_path / "link")
    assert not inside.exists()
    assert not (tmp_path / "link").is_symlink()
    assert (outside / "precious").exists()


def test_checkpoints_that_are_links(outside: Path, tmp_path: Path) -> None:
    """Rotated, damaged, left over: the links go, what they lead to stays."""
    for name in ("checkpoint-1", "checkpoint-2", "checkpoint-3", ".checkpoint-9.partial"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).symlink_to(outside)
    checkpoints.rotate(tmp_path / "run", keep=2)
    newest, notes = checkpoints.newest_valid(tmp_path / "run")
    assert newest is None
    assert len(notes) == 2
    assert checkpoints.newest_valid(tmp_path / "run") == (None, [])
    for name in ("checkpoint-2", "checkpoint-3"):  # once more, where those set aside are there already
        (tmp_path / "run" / name).symlink_to(outside)
    assert len(checkpoints.newest_valid(tmp_path / "run")[1]) == 2
    assert [file.name for file in outside.iterdir()] == ["precious"]


def test_nothing_is_written_through_a_link(outside: Path, tmp_path: Path) -> None:
    precious = outside / "precious"
    (tmp_path / "results.json").symlink_to(precious)
    (tmp_path / ".results.json.partial").symlink_to(precious)
    write_text(tmp_path / "results.json", "new")
    assert precious.read_text(encoding="utf-8") == "x"
    assert not (tmp_path / "results.json").is_symlink()
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == "new"


def test_a_lock_is_no_link(outside: Path, tmp_path: Path) -> None:
    """Who takes a lock writes into it."""
    (tmp_path / ".run.lock").symlink_to(outside / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        take(tmp_path / ".run.lock")
    assert (outside / "precious").read_text(encoding="utf-8") == "x"
