"""A temporary folder is gone at the end, and one of a killed process when the next is made."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distil.system.scratch import PREFIX, scratch

HOLD = """
import sys, time
from distil.system.scratch import scratch
with scratch("held") as folder:
    (folder / "rows.arrow").write_text("private")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def held() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_gone_at_the_end(place: Path) -> None:
    def use() -> None:
        with scratch("any") as folder:
            assert folder.is_dir()
            assert folder.parent == place
            (folder / "file").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(place: Path) -> None:
    """That of a living one stays."""
    (living, theirs), (dead, left) = held(), held()
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    assert left.is_dir(), "nobody was there to remove it"
    try:
        with scratch("any") as mine:
            assert not left.exists()
            assert sorted(place.iterdir()) == sorted([mine, theirs])
    finally:
        living.kill()
        living.wait()


def test_what_is_not_ours_stays(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Another prefix, and a link of that name to a folder elsewhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").write_text("x")
    (place / f"{PREFIX}link").symlink_to(elsewhere)
    (place / "distil-notes").mkdir()
    with scratch("any"):
        pass
    assert (elsewhere / "kept").exists()
    assert {path.name for path in place.iterdir()} == {f"{PREFIX}link", "distil-notes"}


def test_one_that_is_taken_before_it_is_locked_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may remove a folder between its making and its lock."""
    make, taken = tempfile.mkdtemp, []

    def make_and_lose(*arguments: str, **keywords: str) -> str:
        name = make(*arguments, **keywords)
        if len(taken) < 2:
            descriptor = os.open(name, os.O_RDONLY)
            taken.append(descriptor)
            if len(taken) == 1:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # it is at it
            else:
                Path(name).rmdir()  # it was
        return name

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with scratch("any") as folder:
        assert folder.is_dir()
        assert len(taken) == 2
    for descriptor in taken:
        os.close(descriptor)
