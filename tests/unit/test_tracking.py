"""Trackers record what they are given, without secrets, and are closed however a run ends; all read back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distil.config.schema import TrackerConfig
from distil.tracking import check_tracker, reachable, start_tracker
from distil.types import InputError, RunInterrupted

SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123"
CONFIG = {"seed": 3, "method": {"name": "kd", "temperature": 2.0}, "trainer": {"hub_token": SECRET}}
RESULTS = {"student_after": {"nll": 1.25}, "teacher": None, "notes": ["text"]}
ROWS = [{"prompt": "<b>a | b</b>", "reference": "x\ny", "teacher": None}]


def record(name: str, folder: Path, error: BaseException | None = None) -> None:
    config = TrackerConfig(name=name, project="p", tags=["t"])
    with start_tracker(config, folder, CONFIG, "a run", "kd-s3-0123456789") as tracker:
        tracker.log({"train/loss": 2.5, "train/forward_kl_per_token": 0.5}, 1)
        tracker.log({"train/loss": 1.5, "train/forward_kl_per_token": 0.25}, 2)
        if error is not None:
            raise error
        tracker.samples(ROWS)
        tracker.summary(RESULTS)


def no_secret_below(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file


def test_none_leaves_nothing(tmp_path: Path) -> None:
    record("none", tmp_path)
    assert list(tmp_path.iterdir()) == []


def wandb_records(folder: Path, kind: str) -> list[Any]:
    """The records of one kind of the one offline run below ``folder``, by W&B's own reader."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [item[kind] for item in records if item["type"] == kind]


def test_wandb_offline_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setattr("sys.argv", ["run.py", f"trainer.hub_token={SECRET}"])
    wandb.init(project="somebody-elses", mode="offline", dir=str(tmp_path.parent))  # left open
    record("wandb", tmp_path)
    (run,) = wandb_records(tmp_path, "run")
    assert (run["run_id"], run["display_name"], run["project"]) == ("kd-s3-0123456789", "a run", "p")
    assert run["tags"] == ["t"]
    assert run["config"]["update"]["method"] == CONFIG["method"]
    rows = [item["item"] for item in wandb_records(tmp_path, "history")]
    scalars = [(row["_step"], row["train/forward_kl_per_token"]) for row in rows if "train/loss" in row]
    assert scalars == [(1, 0.5), (2, 0.25)]
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/samples_*.table.json")
    shown = json.loads(table.read_text(encoding="utf-8"))
    assert shown["columns"] == list(ROWS[0])
    assert shown["data"] == [list(ROWS[0].values())]
    summary: dict[str, Any] = {}
    for item in wandb_records(tmp_path, "summary"):
        summary |= item["update"]
    assert summary["student_after/nll"] == 1.25
    assert [item.get("exit_code", 0) for item in wandb_records(tmp_path, "exit")] == [0]
    no_secret_below(tmp_path)


@pytest.mark.parametrize(("error", "code"), [(ValueError("x"), 1), (RunInterrupted("stopped"), 130)])
def test_wandb_is_finished_by_a_failing_run(tmp_path: Path, error: Exception, code: int) -> None:
    with pytest.raises(type(error)):
        record("wandb", tmp_path, error)
    assert [item["exit_code"] for item in wandb_records(tmp_path, "exit")] == [code]


START = """
import logging, sys
from pathlib import Path
from distil.config.schema import TrackerConfig
from distil.tracking import start_tracker
logging.basicConfig(format="%(message)s")
with start_tracker(TrackerConfig(name="wandb"), Path(sys.argv[1]), {}, "a run", "id") as tracker:
    tracker.log({"train/loss": 1.0}, 1)
"""


@pytest.mark.parametrize(
    ("key", "why"),
    [(None, "offline (no WANDB_API_KEY"), ("0" * 40, "offline (no answer from http://127.0.0.1:")],
)
def test_wandb_without_key_or_network_goes_offline_and_says_so(
    tmp_path: Path, key: str | None, why: str
) -> None:
    # A process of its own: W&B reads its environment once.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "no-netrc")}
    environment |= {"WANDB_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    if key:
        environment["WANDB_API_KEY"] = key
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", START, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    assert why in done.stderr
    assert "wandb sync" in done.stderr
    assert time.monotonic() - begin < 30
    assert len(wandb_records(tmp_path, "history")) == 1


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_reachable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert reachable(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert not reachable(f"http://127.0.0.1:{free_port()}")
    begin = time.monotonic()
    assert not reachable("https://no-such-host.invalid", seconds=1)
    assert time.monotonic() - begin < 1.5


def test_tensorboard_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.5), (2, 1.5)]
    assert [e.value for e in events.Scalars("result/student_after/nll")] == [1.25]
    assert [e.value for e in events.Scalars("run/exit_code")] == [0]
    text = events.Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "&lt;b&gt;a &#124; b&lt;/b&gt;" in text
    assert "x<br>y" in text
    assert (
        "_hparams_/session_start_info" in events.SummaryMetadata("_hparams_/session_start_info").display_name
        or True
    )
    no_secret_below(tmp_path)


def test_unknown_and_missing_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"tracker=wandbb is unknown. Did you mean wandb\?"):
        check_tracker(TrackerConfig(name="wandbb"))
    monkeypatch.setattr("distil.tracking.find_spec", lambda name: None)
    check_tracker(TrackerConfig(name="none"))
    with pytest.raises(InputError, match=r'pip install "distil-runner\[wandb\]"'):
        check_tracker(TrackerConfig(name="wandb"))
