"""Trackers record what they are given, without secrets, and are closed however a run ends; all read back."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distil.config.schema import TrackerConfig
from distil.system.redact import redact
from distil.tracking import check_tracker, how_to_see, start_tracker
from distil.tracking.event_files import TensorBoardTracker
from distil.tracking.network import reachable
from distil.types import InputError, RunInterrupted

SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123"
CONFIG = {
    "name": "sweep",
    "seed": 3,
    "method": {"name": "kd", "temperature": 2.0},
    "model": {"name": "embedded"},
    "peft": {"name": "lora", "r": 8, "target_modules": ["q", "v"]},
    "trainer": {"hub_token": SECRET, "learning_rate": 1e-3, "max_steps": 5, "run_name": None},
}
RESULTS = {
    "metrics": {
        "nll": {"unit": "nats/token", "higher_is_better": False},
        "length_ratio": {"unit": "", "higher_is_better": None},
    },
    "teacher": None,
    "student_before": {"nll": 2.5, "length_ratio": None},
    "student_after": {"nll": 1.25, "length_ratio": 0.5},
    "notes": ["text"],
}
COST = {"steps": 2, "seconds": {"train": 1.5}, "parameters": {"teacher": None, "trainable": 7}}
NUMBERS = {
    "student_before/nll": 2.5,
    "student_after/nll": 1.25,
    "student_after/length_ratio": 0.5,
    "cost/steps": 2.0,
    "cost/seconds/train": 1.5,
    "cost/parameters/trainable": 7.0,
}
TABLE = [
    ["nll", "nats/token", "lower", None, 2.5, 1.25],
    ["length_ratio", "", "", None, None, 0.5],
]
ROWS = [{"prompt": "<b>a | b</b>", "reference": "x\ny", "teacher": None}]


def record(name: str, folder: Path, error: BaseException | None = None) -> None:
    config = TrackerConfig(name=name, project="p", tags=["t"])
    with start_tracker(config, folder, CONFIG, "a run", "kd-s3-0123456789") as tracker:
        tracker.log({"train/loss": 2.5, "train/forward_kl_per_token": 0.5}, 1)
        tracker.log({"train/loss": 1.5, "train/forward_kl_per_token": 0.25}, 2)
        if error is not None:
            raise error
        tracker.samples(ROWS)
        tracker.summary(RESULTS, COST)


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


def wandb_table(folder: Path, name: str) -> tuple[list[str], list[list[Any]]]:
    (file,) = folder.glob(f"wandb/offline-run-*/files/media/table/{name}_*.table.json")
    table = json.loads(file.read_text(encoding="utf-8"))
    return table["columns"], table["data"]


def test_wandb_offline_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setattr("sys.argv", ["run.py", f"trainer.hub_token={SECRET}"])
    wandb.init(project="somebody-elses", mode="offline", dir=str(tmp_path.parent))  # left open
    record("wandb", tmp_path)
    (run,) = wandb_records(tmp_path, "run")
    assert (run["run_id"], run["display_name"], run["project"]) == ("kd-s3-0123456789", "a run", "p")
    assert (run["run_group"], run["job_type"]) == ("sweep", "distil")
    assert set(run["tags"]) == {"method=kd", "model=embedded", "peft=lora", "t"}
    assert not run.get("resume"), "the log is whole: it takes the place of what was synced before"
    told = run["config"]["update"]
    assert {key: told[key] for key in CONFIG} == redact(CONFIG)
    assert told["units"]["train/loss"].startswith("nats per scored token")
    rows = [item["item"] for item in wandb_records(tmp_path, "history")]
    scalars = [(row["_step"], row["train/forward_kl_per_token"]) for row in rows if "train/loss" in row]
    assert scalars == [(1, 0.5), (2, 0.25)]
    assert wandb_table(tmp_path, "samples") == (list(ROWS[0]), [list(ROWS[0].values())])
    columns = ["metric", "unit", "better", "teacher", "student_before", "student_after"]
    assert wandb_table(tmp_path, "results") == (columns, TABLE)
    summary: dict[str, Any] = {}
    for item in wandb_records(tmp_path, "summary"):
        summary |= item["update"]
    assert {key: summary[key] for key in NUMBERS} == NUMBERS
    assert [item.get("exit_code", 0) for item in wandb_records(tmp_path, "exit")] == [0]
    no_secret_below(tmp_path)


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_second_session_takes_the_place_of_the_first(name: str, tmp_path: Path) -> None:
    """What a killed session logged beyond its checkpoint, and what both logged, stands there once."""
    config, run = TrackerConfig(name=name), "kd-s3-0123456789"
    killed = start_tracker(config, tmp_path, CONFIG, "a run", run)
    for step in (1, 2, 3):
        killed.log({"train/loss": float(step)}, step)
    killed.finish(1)
    before = time.time()
    with start_tracker(config, tmp_path, CONFIG, "a run", run) as tracker:
        tracker.log({"train/loss": 1.0}, 1, ago=100.0)
        tracker.log({"train/loss": 2.0}, 2, ago=50.0)
        tracker.log({"train/loss": 2.5}, 3)
    if name == "wandb":
        rows = [item["item"] for item in wandb_records(tmp_path, "history")]
        told = [(row["_step"], row["train/loss"], row["_timestamp"]) for row in rows]
    else:
        told = [(e.step, e.value, e.wall_time) for e in events_of(tmp_path).Scalars("train/loss")]
    assert [point[:2] for point in told] == [(1, 1.0), (2, 2.0), (3, 2.5)]
    ages = [before - when for _, _, when in told]
    assert ages[0] == pytest.approx(100, abs=20)
    assert ages[1] == pytest.approx(50, abs=20)
    assert ages[2] == pytest.approx(0, abs=20)


def test_a_relative_folder_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's writer, once started, stays in the folder where that was."""
    import wandb

    wandb.init(mode="offline", dir=str(tmp_path / "elsewhere")).finish()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    record("wandb", Path("run"))
    assert len(wandb_records(tmp_path / "run", "run")) == 1


def test_wandb_keeps_report_and_student_where_asked(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>report</p>", encoding="utf-8")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model.safetensors").write_bytes(b"weights")
    kept = {}
    for report, student in ((True, False), (False, True), (False, False)):
        config = TrackerConfig(name="wandb", log_report=report, log_student=student)
        with start_tracker(config, tmp_path, CONFIG, "a run", "kd+x-s3") as tracker:
            tracker.log({"train/loss": 1.0}, 1)
            tracker.files(tmp_path)
        kept[report, student] = [
            (item["type"], item["name"], [file["path"] for file in item["manifest"]["contents"]])
            for item in wandb_records(tmp_path, "artifact")
        ]
    assert kept == {
        (True, False): [("report", "report-kd_x-s3", ["report.html"])],
        (False, True): [("model", "student-kd_x-s3", ["model.safetensors"])],
        (False, False): [],
    }


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
logging.basicConfig(format="%(message)s", level=logging.INFO)
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
    assert "wandb:" not in done.stderr, "W&B's own words, once for every job of a sweep"
    assert time.monotonic() - begin < 30
    assert len(wandb_records(tmp_path, "history")) == 1
    (told,) = how_to_see([tmp_path])
    *said, line = told.splitlines()
    assert "  wandb sync " in line
    if key:  # it is set already: what lacks is the server
        assert said[0].startswith("W&B: 1 run recorded offline: no answer from http://127.0.0.1:")
        assert said[1] == "With a network, this uploads:"
    else:
        assert said == ["W&B: 1 run recorded offline. With WANDB_API_KEY set, this uploads:"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Itself, or by way of the proxy that the environment names, with or without a scheme."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        open_, closed = (f"127.0.0.1:{port}" for port in (listener.getsockname()[1], free_port()))
        assert reachable(f"http://{open_}")
        assert not reachable(f"http://{closed}")
        monkeypatch.setenv("http_proxy", open_)
        assert reachable(f"http://{closed}")
        monkeypatch.setenv("http_proxy", f"http://{open_}/")
        assert reachable(f"http://{closed}")
        monkeypatch.setenv("http_proxy", f"http://{closed}")
        assert not reachable(f"http://{open_}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert reachable(f"http://name@{open_}")
        assert reachable(f"http://{open_}")
    monkeypatch.delenv("http_proxy")
    begin = time.monotonic()
    assert not reachable("https://no-such-host.invalid", seconds=1)
    assert time.monotonic() - begin < 1.5


def events_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def text_of(events: Any, name: str) -> str:
    text: str = events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
    return text


def test_tensorboard_read_back(tmp_path: Path) -> None:
    record("tensorboard", tmp_path)
    events = events_of(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.5), (2, 1.5)]
    for name, value in NUMBERS.items():
        assert [(e.step, e.value) for e in events.Scalars(f"result/{name}")] == [(2, value)]
    assert [e.value for e in events.Scalars("run/exit_code")] == [0]
    assert "&lt;b&gt;a &#124; b&lt;/b&gt;" in text_of(events, "samples")
    assert "x<br>y" in text_of(events, "samples")
    assert "| nll | nats/token | lower |  | 2.5 | 1.25 |" in text_of(events, "results")
    assert "hub_token: '***'" in text_of(events, "config")
    no_secret_below(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "def __init__(self): return a*b*c",
        "![x](http://host/x.png) [y](http://host)",
        "`a` **b** ~~c~~",
        r"\*|",
    ],
)
def test_tensorboard_shows_texts_as_they_are(text: str, tmp_path: Path) -> None:
    """By TensorBoard's own reader of Markdown: nothing is emphasis, nothing is fetched from anywhere."""
    from tensorboard.plugin_util import markdown_to_safe_html

    tracker = TensorBoardTracker(tmp_path, CONFIG)
    tracker.samples([{"prompt": text, "student_after": "end"}])
    tracker.finish()
    page = markdown_to_safe_html(text_of(events_of(tmp_path), "samples"))
    (cell,) = re.findall(r"<td>(.*)</td>\s*<td>end</td>", page)
    assert "<" not in cell
    assert html.unescape(cell) == text


def test_the_hparams_tab_lists_runs_by_what_was_chosen(tmp_path: Path) -> None:
    """By TensorBoard's own reader: a run that is done, its choices, its final numbers."""
    from tensorboard.plugins.hparams import metadata

    record("tensorboard", tmp_path)
    content = events_of(tmp_path).summary_metadata
    start = metadata.parse_session_start_info_plugin_data(
        content[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    chosen = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
    assert chosen == {
        "method": "kd",
        "method.temperature": 2.0,
        "model": "embedded",
        "peft": "lora",
        "peft.r": 8,
        "peft.target_modules": "['q', 'v']",
        "seed": 3,
        "trainer.learning_rate": 1e-3,
        "trainer.max_steps": 5,
    }
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG].plugin_data.content)
    assert {info.name.tag for info in experiment.metric_infos} == {f"result/{name}" for name in NUMBERS}
    end = metadata.parse_session_end_info_plugin_data(
        content[metadata.SESSION_END_INFO_TAG].plugin_data.content
    )
    assert end.status == 1, "STATUS_SUCCESS"


def test_what_to_type_at_the_end(tmp_path: Path) -> None:
    runs = [tmp_path / "a sweep" / name for name in ("one", "two", "three")]
    assert how_to_see(runs) == []
    for run in runs[:2]:
        log = run / "wandb" / "offline-run-20260101_000000-x" / "run-x.wandb"
        log.parent.mkdir(parents=True)
        log.touch()
    shown = f"'{tmp_path}/a sweep"
    (text,) = how_to_see(runs[:1])
    line = text.splitlines()[-1]
    assert line == f"  wandb sync {shown}/one/wandb/offline-run-20260101_000000-x'"
    (text,) = how_to_see(runs, parent=tmp_path / "a sweep")
    said, line = text.splitlines()
    assert said.startswith("W&B: 2 runs recorded offline.")
    assert len(said) <= 80
    assert line == f"  wandb sync {shown}'/*/wandb/offline-run-*"
    globbed = subprocess.run(
        ["bash", "-c", f"printf '%s\n' {line.partition('wandb sync ')[2]}"], capture_output=True, text=True
    )
    assert [Path(found) for found in sorted(globbed.stdout.splitlines())] == [
        next(run.glob("wandb/*")) for run in runs[:2]
    ]
    (runs[0] / "wandb/offline-run-20260101_000000-x/run-x.wandb.synced").touch()
    assert how_to_see(runs, parent=tmp_path / "a sweep")[0].startswith("W&B: 1 run recorded offline.")
    (runs[2] / "tensorboard").mkdir(parents=True)
    (text,) = how_to_see(runs[2:])
    assert text.splitlines()[-1] == f"  tensorboard --logdir {shown}/three/tensorboard'"


@pytest.mark.parametrize("tags", [[""], ["x" * 65]])
def test_tags_that_wandb_would_refuse(tags: list[str]) -> None:
    with pytest.raises(InputError, match=r"tracker\.tags: '.*': a tag has 1 to 64 characters"):
        TrackerConfig(name="wandb", tags=tags)


def test_unknown_and_missing_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"tracker=wandbb is unknown. Did you mean wandb\?"):
        check_tracker(TrackerConfig(name="wandbb"))
    monkeypatch.setattr("distil.tracking.find_spec", lambda name: None)
    check_tracker(TrackerConfig(name="none"))
    with pytest.raises(InputError, match=r"pip install .*\[wandb\]'"):
        check_tracker(TrackerConfig(name="wandb"))
