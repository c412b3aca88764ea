"""``distil cache``: what lies on the disk is told, checked and removed."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest
import torch

from distil.cli import main
from distil.system.locks import alone
from distil.teacher_cache.manifest import Manifest
from distil.teacher_cache.store import write_shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / ".teacher_cache"
    for name, complete in (("topk-aa", True), ("hidden-bb", False)):
        (root / name).mkdir(parents=True)
        shards = [
            write_shard(root / name, f"{i:05d}.safetensors", 2 * i, [3, 4], {"hidden_NH": torch.ones(7, 5)})
            for i in range(2)
        ]
        key = {"format": {"name": "topk", "k": 12, "temperatures": [1.0, 2.0]}}
        key |= {"teacher": {"autocast": "bfloat16", "quantization": "none", "dtype": "float32"}}
        about = {
            "key": key if complete else {},
            "teacher": "distil:embedded/teacher",
            "split": "training",
            "rows": 4,
        }
        Manifest(about, tuple(shards), complete).write(root / name)
    (root / "mine").mkdir()
    (root / "mine" / "notes.txt").write_text("not a cache", encoding="utf-8")
    return root


def test_info_names_teacher_rows_and_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info", "--folder", str(folder)]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    (line,) = (line for line in told.splitlines() if line.startswith("topk-aa"))
    assert line.split()[1:6] == ["distil:embedded/teacher", "training", "4", "14", f"{line.split()[5]}"]
    assert told_below("hidden-bb", told) == "unfinished"
    assert datetime.fromisoformat(" ".join(told_below("topk-aa", told).split()[:2])).date() == date.today()
    assert {"k=12", "temperatures=[1.0,2.0]", "mixed=bfloat16"} <= set(told.split())
    assert "model.teacher.dtype=float32" in told
    assert "mine" not in told


def told_below(name: str, told: str) -> str:
    """The line below the one of a cache."""
    lines = told.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.split()[0] == name)
    return lines[at + 1].strip()


def test_verify_names_the_file_that_has_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "verify", "--folder", str(folder)]) == 0
    path = folder / "topk-aa" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    assert main(["cache", "verify", "--folder", str(folder)]) == 1
    assert f"{path} has changed" in capsys.readouterr().out
    assert main(["cache", "verify", "hidden-bb", "--folder", str(folder)]) == 0


def test_a_cache_is_named_by_its_path_too_and_a_folder_is_no_name(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["cache", "verify", str(folder / "hidden-bb"), "--folder", str(folder)]) == 0
    assert capsys.readouterr().out == "hidden-bb: unfinished, so far whole\n"
    elsewhere = folder.parent
    assert main(["cache", "info", str(elsewhere), "--folder", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {elsewhere} is a folder: ")
    assert f"--folder {elsewhere}, those meant by their names" in said
    larger = (folder / "hidden-bb").rename(elsewhere / "on-another-disk")
    (folder / "hidden-bb").symlink_to(larger)
    assert main(["cache", "verify", "hidden-bb", "--folder", str(folder)]) == 0
    assert capsys.readouterr().out == "hidden-bb: unfinished, so far whole\n"
    monkeypatch.chdir(elsewhere)  # where no cache lies
    assert main(["cache", "info", str(folder)]) == 2
    assert f"--folder {folder}, those meant by their names" in capsys.readouterr().err


def test_clear_removes_caches_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "hidden-bb", "--folder", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "topk-aa"]
    with alone(folder / "topk-aa", None):
        assert main(["cache", "clear", "--folder", str(folder)]) == 0
    assert "topk-aa is in use: left." in capsys.readouterr().out
    assert (folder / "topk-aa" / "manifest.json").exists()
    assert main(["cache", "clear", "--folder", str(folder)]) == 0
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert main(["cache", "info", "--folder", str(folder)]) == 0


def test_a_cache_whose_manifest_is_damaged_is_listed_named_and_removed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hurt = (folder / "topk-aa").rename(folder / "topk-0123456789ab")
    content = bytearray((hurt / "manifest.json").read_bytes())
    content[0] ^= 1
    (hurt / "manifest.json").write_bytes(content)
    where = ["--folder", str(folder)]
    assert main(["cache", "info", *where]) == 0
    assert told_below(hurt.name, capsys.readouterr().out) == "damaged"
    assert main(["cache", "verify", *where]) == 1
    assert f"{hurt / 'manifest.json'} cannot be read" in capsys.readouterr().out
    assert main(["cache", "clear", hurt.name, *where]) == 0
    assert not hurt.exists()


def test_what_a_build_left_that_was_killed_in_its_first_file_is_listed_and_removed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, foreign = folder / "hidden-0123456789ab", folder / "mine-0123456789ab"
    for made in (begun, foreign):
        made.mkdir()
    (begun / ".00000.safetensors.partial").write_bytes(b"half")
    (foreign / "notes.txt").write_text("not a cache", encoding="utf-8")
    for lock in (begun.name, "head-0123456789ab", "mine"):
        (folder / f".{lock}.lock").touch()
    where = ["--folder", str(folder)]
    assert main(["cache", "info", *where]) == 0
    told = capsys.readouterr().out
    assert told_below(begun.name, told) == "unfinished"
    assert foreign.name not in told
    assert main(["cache", "verify", begun.name, *where]) == 0
    with alone(begun, None):
        assert main(["cache", "clear", *where]) == 0
    assert f"{begun.name} is in use: left." in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [".mine.lock", begun.name, "mine", foreign.name]
    (folder / f".{begun.name}.lock").touch()
    assert main(["cache", "clear", *where]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [".mine.lock", "mine", foreign.name]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["info", "--folder", "nowhere"], "--folder nowhere: no such folder"),
        (["info", "--folder", __file__], f"--folder {__file__}: is a file, not a folder"),
        ([], "distil cache: the following arguments are required: info|verify|clear. See"),
        (["burn"], "invalid choice"),
        (["verify", "topk-ab"], "cache=topk-ab is unknown. Did you mean topk-aa?"),
    ],
)
def test_what_cannot_be_done_is_told(
    words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [] if "--folder" in words else ["--folder", str(folder)]
    assert main(["cache", *words, *where]) == 2
    assert told in capsys.readouterr().err


def test_no_cache_yet_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder was given: none can be wrong. A name that is asked for is not there, though."""
    monkeypatch.chdir(tmp_path)
    assert main(["cache", "info"]) == 0
    assert "no cache here yet: runs with teacher_cache= keep theirs in outputs/" in capsys.readouterr().out
    assert main(["cache", "verify", "topk-ab"]) == 2


def test_what_cannot_be_written_to_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lock that cannot be opened, as in a folder that is read-only: that alone stops no superuser."""
    lock = folder / ".topk-aa.lock"
    lock.mkdir()
    assert main(["cache", "clear", "--folder", str(folder)]) == 2
    assert f"distil cache clear: {lock}: Is a directory." in capsys.readouterr().err
    assert (folder / "topk-aa" / "manifest.json").exists()
