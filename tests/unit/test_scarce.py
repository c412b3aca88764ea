"""What is said, and what is not, where a disk takes no more. ``/dev/full`` takes nothing."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distil.config.schema import TrackerConfig
from distil.run_log import log_file
from distil.system.files import unwritable
from distil.system.limits import IMPORTS, RUN
from distil.tracking import how_to_see, start_tracker
from distil.tracking.ending import WHY, note_why
from distil.tracking.event_files import TensorBoardTracker
from distil.types import RunFailed
from tests.end_to_end.conftest import ROOT
from tests.unit.report.made_up_run import write_run

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_the_way_out_of_a_folder_that_takes_no_files(number: int) -> None:
    """Elsewhere a run would begin anew: that is no way out of one that has begun."""
    error = OSError(number, os.strerror(number), "x")
    first, begun = (str(unwritable("output_dir", "o", error, begun)) for begun in (False, True))
    for told in (first, begun):
        assert told.startswith(f"output_dir=o cannot be written to ({os.strerror(number)}: x). ")
        assert ("Free some space" in told) == (number != errno.EIO)
    assert "ive another output_dir=." in first
    assert "another output_dir" not in begun
    assert "the same command goes on" in begun


def limited(size: int, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python with ``size`` bytes of addresses."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
        timeout=60,
        check=False,
    )


def test_a_limit_below_what_a_run_takes_is_told_before_it(tmp_path: Path) -> None:
    """Beyond it OpenBLAS would try for ever, and other libraries abort."""
    ended = limited(RUN * 9 // 10, "-m", "distil", "run", cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    limit = f"The limit of addresses (ulimit -v) is {RUN * 9 // 10 / 1e9:.2f} GB here"
    assert f"error: {limit}, and a run takes at least" in ended.stderr
    assert not list(tmp_path.iterdir()), "a run that never began leaves nothing"


def test_a_limit_hides_no_run_that_is_done(tmp_path: Path) -> None:
    """Nothing loads. Nor does it where jobs of a cluster are made, which run under other limits."""
    command = ("-m", "distil", "run", f"output_dir={tmp_path}")
    _, run, *_ = limited(RUN * 9 // 10, *command, cwd=tmp_path).stderr.split()
    Path(run).parent.mkdir(exist_ok=True)
    write_run(tmp_path).rename(run)
    ended = limited(RUN * 9 // 10, *command, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"Done before: {run}" in "".join(ended.stdout.splitlines())


def test_a_limit_below_what_imports_take_is_told_by_verbs(tmp_path: Path) -> None:
    begins = "from pathlib import Path; from distil.verbs.arguments import begin; begin('Merging', Path('x'))"
    ended = limited(IMPORTS * 9 // 10, "-c", begins, cwd=tmp_path)
    assert (
        "InputError: The limit of addresses (ulimit -v) is 1.08 GB here, and importing torch" in ended.stderr
    )
    assert limited(IMPORTS * 11 // 10, "-c", begins, cwd=tmp_path).returncode == 0
    ended = limited(IMPORTS, "-c", "import torch, transformers", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_event_files_that_a_full_disk_does_not_take(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One line; no call fails, TensorBoard's thread prints nothing, other threads' hook is put back."""
    before = threading.excepthook
    with start_tracker(TrackerConfig(name="tensorboard"), tmp_path, {"seed": 0}, "run", "run") as tracker:
        (events,) = (tmp_path / "tensorboard").iterdir()
        events.unlink()
        events.symlink_to(FULL)
        for step in range(30):
            tracker.log({"train/loss": 1.0}, step)
        tracker.samples([{"prompt": "x"}])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "The tracker failed and records no more; the run goes on." in caplog.text
    assert "No space left on device" in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook == before


def test_event_files_that_cannot_begin_leave_the_hook_of_threads(tmp_path: Path) -> None:
    before = threading.excepthook
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OSError, match="tensorboard"):
        TensorBoardTracker(tmp_path, {"seed": 0})
    assert threading.excepthook == before


def test_why_a_record_is_offline_costs_nothing_where_it_cannot_be_kept(tmp_path: Path) -> None:
    log = tmp_path / "run" / "wandb" / "offline-run-1-a" / "run-a.wandb"
    log.parent.mkdir(parents=True)
    log.touch()
    (log.parent / WHY).symlink_to(FULL)
    note_why(log.parent, "no answer")
    (log.parent / WHY).unlink()
    (log.parent / WHY).write_bytes(b"\xff")
    (told,) = how_to_see([tmp_path / "run"])
    assert "recorded offline. With WANDB_API_KEY set, this uploads:" in told


def test_other_threads_are_heard_beside_event_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise RunFailed("of mine")

    heard: list[str] = []
    before = threading.excepthook
    threading.excepthook = lambda told: heard.append(str(told.exc_value))
    try:
        with start_tracker(TrackerConfig(name="tensorboard"), tmp_path, {"seed": 0}, "run", "run"):
            thread = threading.Thread(target=fails)
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    assert heard == ["of mine"]


def test_a_tracker_s_own_log_that_a_full_disk_does_not_take(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = logging.FileHandler(FULL)
    theirs = logging.getLogger("theirs")
    theirs.addHandler(handler)
    theirs.propagate = False
    try:
        theirs.error("printed: it is not lost where nothing asks for that")
        assert "Logging error" in capfd.readouterr().err
        with log_file(tmp_path / "run.log"):
            theirs.error("lost")
        assert capfd.readouterr().err == ""
    finally:
        theirs.removeHandler(handler)
    assert logging.raiseExceptions
