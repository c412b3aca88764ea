"""``distil cache``: what lies on the disk is told, checked and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distil.cli import main
from distil.locks import alone
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
        about = {"teacher": "distil:embedded/teacher", "split": "training", "rows": 4}
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
    assert "hidden-bb (unfinished)" in told
    assert "mine" not in told


def test_verify_names_the_file_that_has_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "verify", "--folder", str(folder)]) == 0
    path = folder / "topk-aa" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    assert main(["cache", "verify", "--folder", str(folder)]) == 1
    assert f"{path} has changed" in capsys.readouterr().out
    assert main(["cache", "verify", "hidden-bb", "--folder", str(folder)]) == 0


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["info", "--folder", "nowhere"], "--folder nowhere: no such folder"),
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
