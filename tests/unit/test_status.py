"""What a run says of failures that are not its own."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from distil import status
from distil.config.trainer import TrainerConfig
from distil.run_files import status_of
from distil.run_log import log_file
from distil.status import kept_status, known_failure, told_how_to_go_on
from distil.system.files import write_json
from distil.types import DistilError, InputError, RunDiverged, RunFailed, RunInterrupted

FULL = Path("/dev/full")
"""A device that is always full (Linux)."""


def test_out_of_memory_is_told_with_the_way_out() -> None:
    """Python's error and torch's, which is a RuntimeError on a CPU."""
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**52)
    mapped = ImportError("libtorch.so: failed to map segment from shared object")
    thread = RuntimeError("can't start new thread")
    for error in (real.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), mapped, thread):
        failure = known_failure(error, TrainerConfig().with_less_memory())
        assert failure is not None
        assert "per_device_train_batch_size=4 trainer.gradient_accumulation_steps=2" in str(failure)
        assert ("ulimit -u" in str(failure)) == ("pids limit" in str(failure)) == (error is thread)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE])
def test_a_disk_that_fails_is_told(number: int) -> None:
    failure = known_failure(OSError(number, os.strerror(number), "results.json"))
    assert failure is not None
    assert os.strerror(number) in str(failure)
    assert "results.json" in str(failure)
    assert known_failure(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None, "a mistake of ours"


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_disk_is_told_whoever_met_it(tmp_path: Path) -> None:
    """Python, torch and safetensors raise three kinds of error."""
    from safetensors import SafetensorError

    link = tmp_path / "full"
    link.symlink_to(FULL)

    def python() -> None:
        with open(link, "wb", buffering=0) as file:
            file.write(b"x" * 5000)

    def by_torch() -> None:
        with open(link, "wb", buffering=0) as file:
            torch.save(torch.zeros(5000), file)

    def by_safetensors() -> None:
        # It writes beside and renames, so a device cannot stand in: its own words from a full file system.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    for save in (python, by_torch, by_safetensors):
        with pytest.raises(Exception) as raised:
            save()
        failure = known_failure(raised.value)
        assert failure is not None, repr(raised.value)
        assert "disk is full" in str(failure)
    assert known_failure(ValueError("No such thing")) is None


def test_status_in_every_ending(tmp_path: Path) -> None:
    """running, then done, failed or interrupted, with the reason and how to go on."""

    def status() -> dict[str, str]:
        content: dict[str, str] = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
        return content

    with kept_status(tmp_path, "id", "the command"):
        assert status()["status"] == "running"
    assert status()["status"] == "done"
    anew = r"^Stopped\. The same command begins the run again:\n  the command$"
    with pytest.raises(RunInterrupted, match=anew), kept_status(tmp_path, "id", "the command"):
        raise KeyboardInterrupt
    (tmp_path / "before.json").touch()
    go_on = r"^Stopped\. The same command goes on with training from its start:\n  the command$"
    with pytest.raises(RunInterrupted, match=go_on), kept_status(tmp_path, "id", "the command"):
        raise KeyboardInterrupt
    assert (status()["status"], status()["reason"]) == ("interrupted", "Ctrl-C")
    with pytest.raises(RunFailed), kept_status(tmp_path, "id", "the command"):
        raise MemoryError
    assert status()["status"] == "failed"
    assert status()["reason"].startswith("Out of memory")
    with pytest.raises(ZeroDivisionError), kept_status(tmp_path, "id", "the command"):
        _ = 1 / 0
    assert "ZeroDivisionError" in status()["reason"]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (
            KeyboardInterrupt(),
            "INFO distil.status: The run ends with exit code 130: Stopped. The same command",
        ),
        (RunDiverged("Step 4."), "ERROR distil.status: The run ends with exit code 1: Step 4."),
        (InputError("Late."), "ERROR distil.status: The run ends with exit code 2: Late."),
        (MemoryError(), "ERROR distil.status: The run ends with exit code 1: Out of memory"),
        (RuntimeError("A mistake of ours."), "ERROR distil.status: The run failed."),
    ],
)
def test_how_a_run_ended_is_in_its_log_and_not_twice_on_the_terminal(
    error: BaseException, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "before.json").touch()  # it had begun
    with (
        pytest.raises((DistilError, RuntimeError)),
        log_file(tmp_path / "run.log"),
        kept_status(tmp_path, "id", "the command"),
    ):
        raise error
    line, *traceback = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert ending in line
    assert (traceback[-1:] == ["RuntimeError: A mistake of ours."]) is bool(traceback)
    assert bool(traceback) is (type(error) is RuntimeError)
    assert line.endswith("the command") is isinstance(error, KeyboardInterrupt)
    assert capsys.readouterr().err == ""


def test_a_second_ctrl_c_says_how_to_go_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that comes before a run is begun again; of one that never began there is nothing to say."""
    with pytest.raises(KeyboardInterrupt), told_how_to_go_on(tmp_path, "the command", True):
        raise KeyboardInterrupt

    def twice() -> None:
        with told_how_to_go_on(tmp_path, "the command", True):
            try:
                with kept_status(tmp_path, "id", "the command"):
                    raise KeyboardInterrupt
            finally:
                raise KeyboardInterrupt  # while the report is written

    def while_it_is_written_down() -> None:
        def write(path: Path, told: dict[str, Any]) -> None:
            if told["status"] == "interrupted":
                raise KeyboardInterrupt
            write_json(path, told)

        monkeypatch.setattr(status, "write_json", write)
        with told_how_to_go_on(tmp_path, "the command", True), kept_status(tmp_path, "id", "the command"):
            raise KeyboardInterrupt

    for stopped, left in ((twice, "interrupted"), (while_it_is_written_down, "running")):
        with pytest.raises(RunInterrupted, match=r"^Stopped\. The same command[^\n]*\n  the command"):
            stopped()
        assert status_of(tmp_path) == left


@pytest.mark.parametrize(
    "computed", ["checkpoints/checkpoint-20/model.safetensors", "before.json", "metrics.jsonl"]
)
def test_what_was_computed_survives_input_that_is_refused_late(tmp_path: Path, computed: str) -> None:
    """A metric of a plugin that refuses the last evaluation, say. Nothing computed: nothing is left."""

    def run(folder: Path, *files: str) -> None:
        with kept_status(folder, "id", "the command"):
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text("{}", encoding="utf-8")
            raise InputError("no such column")

    def refused(folder: Path, *files: str) -> None:
        folder.mkdir(exist_ok=True)
        with pytest.raises(InputError, match="no such"):
            run(folder, *files)

    refused(tmp_path / "late", computed)
    assert (tmp_path / "late" / computed).exists()
    status = json.loads((tmp_path / "late" / "status.json").read_text(encoding="utf-8"))
    assert (status["status"], status["reason"]) == ("failed", "no such column")
    (tmp_path / "late" / "status.json").unlink()  # lost, with a disk or by hand
    refused(tmp_path / "late")
    assert (tmp_path / "late" / computed).exists()
    refused(tmp_path / "early", "config.yaml", "spent.json", "checkpoints/.checkpoint-1.partial/x")
    assert not (tmp_path / "early").exists()


@pytest.mark.parametrize(
    ("typed", "resumes", "shown"),
    [
        ("run.py a=1", True, "run.py a=1"),
        ("run.py a=1 run.resume=false b=2", False, "run.py a=1 b=2"),
        ("run.py a=1 ++run.resume=False", False, "run.py a=1"),
        ("run.py +debug=mine", False, "run.py +debug=mine run.resume=true"),
    ],
)
def test_no_command_is_shown_that_removes_the_checkpoints(
    tmp_path: Path, typed: str, resumes: bool, shown: str
) -> None:
    """One that starts afresh must not be typed again to go on."""

    def stopped() -> str:
        with pytest.raises(RunInterrupted) as raised, kept_status(tmp_path, "id", typed, resumes):
            raise KeyboardInterrupt
        return str(raised.value)

    before = stopped()
    who = f"The same command{'' if resumes else ' without run.resume=false'}"
    assert before.endswith(f"{who} begins the run again:\n  {shown}")
    assert "checkpoint" not in before, "there is none"
    (tmp_path / "checkpoints" / "checkpoint-6").mkdir(parents=True)
    after = stopped()
    assert after.endswith(f"{who} goes on from the last checkpoint:\n  {shown}")


def test_a_status_that_cannot_be_written_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for status.json too: the run's own error comes through, and no half file stays."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def run() -> None:
        with kept_status(tmp_path, "id", "the command"):
            monkeypatch.setattr(os, "fsync", full)
            full(0)

    with pytest.raises(RunFailed, match="disk is full"):
        run()
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
