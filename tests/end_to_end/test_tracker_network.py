"""A tracker's server that goes away, refuses or fails costs a run its record there, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distil.config.schema import TrackerConfig
from distil.tracking import how_to_see, start_tracker
from distil.tracking.wandb_run import WandbTracker
from tests.end_to_end.conftest import Command

pytest.importorskip("wandb", reason="wandb is not installed")
FAKE = Path(__file__).with_name("fake_wandb.py")


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The environment of a run whose W&B is the fake one."""
    port = tmp_path / "port"
    server = subprocess.Popen([sys.executable, str(FAKE), str(port), request.param])
    deadline = time.monotonic() + 30
    while not (port.exists() and port.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port.read_text()}")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    for name in ("WANDB_MODE", "_WANDB_SERVICE", "WANDB_SERVICE"):  # no writer of another test
        monkeypatch.delenv(name, raising=False)
    yield request.param
    server.kill()
    server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("served", ["vanish"], indirect=True)
def test_a_network_that_is_cut_in_training(
    served: str, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """The run ends as it would have, its process too, and says how its record gets there."""
    ended = run_command(*small_arguments, "tracker=wandb", f"output_dir={tmp_path}/o", timeout=400)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    (run,) = (tmp_path / "o" / "default").iterdir()
    assert json.loads((run / "status.json").read_text())["status"] == "done"
    assert (run / "results.json").is_file()
    (record,) = run.glob("wandb/run-*")
    assert f"wandb sync {record} uploads" in " ".join(ended.stderr.split())
    assert list(record.glob("*.wandb")), "what it was given lies there"


@pytest.mark.parametrize("served", ["vanish"], indirect=True)
def test_what_was_recorded_offline_is_handed_on_online(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on is handed all of its scalars: what lies there of an offline session is no news."""
    import wandb

    wandb.teardown()  # it keeps the server of an earlier test
    run, config = tmp_path / "run", TrackerConfig(name="wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with start_tracker(config, run, {}, "a run", "0123456789") as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    assert "1 run recorded offline" in how_to_see([run])[0]
    monkeypatch.delenv("WANDB_MODE")
    online = WandbTracker(config, run, {}, "a run", "0123456789")
    try:
        assert online.mode == "online"
        assert how_to_see([run]) == []
        assert online.folder.is_dir()
    finally:
        online.abandon()


@pytest.mark.parametrize("served", ["refuse"], indirect=True)
def test_a_key_that_is_refused(
    served: str, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Before any model loads, and nothing is left."""
    ended = run_command(*small_arguments, "tracker=wandb", f"output_dir={tmp_path}/o", timeout=200)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    told = " ".join(ended.stderr.split())
    assert "tracker=wandb: W&B refuses the run" in told
    assert "Look at WANDB_API_KEY" in told
    assert "0123456789" not in ended.stderr
    assert not list((tmp_path / "o").rglob("config.yaml"))


@pytest.mark.parametrize("served", ["fail"], indirect=True)
def test_a_server_that_fails_is_recorded_offline(
    served: str, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    ended = run_command(*small_arguments, "tracker=wandb", f"output_dir={tmp_path}/o", timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "the run is recorded offline" in " ".join(ended.stderr.split())
    assert list((tmp_path / "o").rglob("offline-run-*"))
