"""What trackers hold of real runs, read back by their own readers: all of it, once, and no secret."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from distil.system.redact import redact
from tests.end_to_end.conftest import ROOT, Command, started
from tests.end_to_end.test_lifecycle import only_run, read

pytestmark = pytest.mark.slow

SHORT = ["trainer.max_steps=6", "trainer.eval_steps=3", "trainer.save_steps=3"]
LONG = ["trainer.max_steps=150", "trainer.save_steps=25", "trainer.eval_steps=25"]


class Log:
    """One offline W&B run, by W&B's own reader."""

    def __init__(self, run: Path) -> None:
        (self.file,) = run.glob("wandb/offline-run-*/*.wandb")
        command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", self.file]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.records = [json.loads(line) for line in done.stdout.splitlines()]
        (self.run,) = self.of("run")
        self.history = [item["item"] for item in self.of("history")]
        self.summary: dict[str, Any] = {}
        for item in self.of("summary"):
            self.summary |= item["update"]

    def of(self, kind: str) -> list[Any]:
        return [record[kind] for record in self.records if record["type"] == kind]

    def table(self, name: str) -> list[dict[str, Any]]:
        (file,) = self.file.parent.glob(f"files/media/table/{name}_*.table.json")
        table = read(file.parent, file.name)
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def lines_of(run: Path) -> dict[int, dict[str, float]]:
    """The scalars of metrics.jsonl by step."""
    merged: dict[int, dict[str, float]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        scalars = {key: value for key, value in record.items() if "/" in key}
        axes = {"train/seconds": record["seconds"], "train/tokens": record["tokens"]}
        merged.setdefault(record["step"], axes).update(scalars)
    return merged


@pytest.fixture(scope="module")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str], run_command: Command
) -> tuple[Path, str]:
    """The run directory of a run with tracker=wandb and no key, and what its command said."""
    output = tmp_path_factory.mktemp("tracked")
    arguments = [
        "method=kd",
        "name=my_sweep",
        *small_arguments,
        *SHORT,
        "tracker=wandb",
        "tracker.tags=[mine]",
    ]
    done = run_command(*arguments, "tracker.log_student=true", f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    return only_run(output), done.stdout + done.stderr


def test_wandb_offline_holds_the_run(tracked: tuple[Path, str]) -> None:
    """Config, units, group, tags, every scalar once, the tables, the summary, what is kept as artifacts."""
    run, said = tracked
    log = Log(run)
    assert log.run["run_id"] == run.name
    assert log.run["run_group"] == "my_sweep"
    assert log.run["job_type"] == "distil"
    assert set(log.run["tags"]) == {"method=kd", "model=custom", "peft=none", "mine"}
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    held = log.run["config"]["update"]
    assert {key: held[key] for key in config} == config

    logged = {row["_step"]: row for row in log.history}
    assert len(logged) == len(log.history)
    expected = lines_of(run)
    assert list(logged) == sorted(expected)
    for step, scalars in expected.items():
        assert {name: logged[step][name] for name in scalars} == scalars
        for name in scalars:
            assert any(fnmatch(name, pattern) for pattern in held["units"]), f"{name} has no unit"

    results, cost = read(run, "results.json"), read(run, "cost.json")
    for row in log.table("results"):
        about = results["metrics"][row["metric"]]
        assert row["unit"] == about["unit"]
        for model in ("teacher", "student_before", "student_after"):
            assert row[model] == results[model][row["metric"]]
            if row[model] is not None:
                assert log.summary[f"{model}/{row['metric']}"] == row[model]
    assert [row["metric"] for row in log.table("results")] == list(results["metrics"])
    assert log.summary["cost/seconds/train"] == cost["seconds"]["train"]
    assert log.summary["cost/parameters/trainable"] == cost["parameters"]["trainable"]
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text("utf-8").splitlines()]
    assert log.table("samples") == samples

    kept = {
        item["name"]: [file["path"] for file in item["manifest"]["contents"]] for item in log.of("artifact")
    }
    assert kept[f"report-{run.name}"] == ["report.html"]
    assert "model.safetensors" in kept[f"student-{run.name}"]
    assert log.of("exit")[0].get("exit_code", 0) == 0
    assert f"wandb sync {log.file.parent}" in said
    assert said.count("wandb sync") == 1


def workspace() -> Any:
    file = ROOT / "scripts" / "wandb_workspace.py"
    specification = importlib.util.spec_from_file_location("wandb_workspace", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def panels_of(spec: Any) -> list[Any]:
    sections = spec["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def test_the_workspace_shows_what_a_run_logs(tracked: tuple[Path, str]) -> None:
    """Every metric, axis, table and config key of its panels is in the log of a real run."""
    log = Log(tracked[0])
    module = workspace()
    spec = module.spec(module.workspace("me", "distil", "my_sweep", "method"))
    curves = {name for row in log.history for name in row}
    named: dict[str, set[str]] = {"Bar Chart": set(), "Run History Line Plot": set(), "Scatter Plot": set()}
    keys, tables = set(), ""
    for panel in panels_of(spec):
        config = panel["config"]
        if panel["viewType"] == "Weave":
            tables += json.dumps(config)
            continue
        named[panel["viewType"]] |= {*config.get("metrics", ()), config.get("xAxis"), config.get("yAxis")}
        keys.add(config.get("groupBy"))
    named = {kind: names - {None} for kind, names in named.items()}
    assert named["Bar Chart"] <= set(log.summary)
    assert named["Run History Line Plot"] <= curves
    assert {name.removeprefix("summary:") for name in named["Scatter Plot"]} <= set(log.summary)
    assert all(named.values())
    assert keys == {"method.value.name", None}
    assert log.run["config"]["update"]["method"]["name"] == "kd"
    for name in module.TABLES:
        assert f'"{name}"' in tables
        assert log.table(name)
    (runs,) = spec["spec"]["section"]["runSets"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"], only["value"]) == ({"section": "run", "name": "group"}, log.run["run_group"])
    assert runs["grouping"] == [{"section": "config", "name": "method.value.name"}]
    for column in runs["runFeed"]["columnOrder"]:
        section, _, name = column.partition(":")
        if section == "summary":
            assert name in log.summary
        if section == "config":
            value: Any = log.run["config"]["update"]
            for part in name.split("."):
                value = value if part == "value" else value[part]
            assert value is not None


def test_the_workspace_is_printed_without_key_or_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    script = ROOT / "scripts" / "wandb_workspace.py"
    command = [sys.executable, script, "--print", "--by", "peft", "--project", "mine"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)
    assert spec["project"] == "mine"
    grouped = {panel["config"].get("groupBy") for panel in panels_of(spec)} - {None}
    assert grouped == {"peft.value.name"}


@pytest.mark.parametrize("tracker", ["wandb", "tensorboard"])
def test_a_killed_run_that_goes_on_is_one_run(
    tracker: str, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Killed behind a checkpoint and started again: one log, with each step of metrics.jsonl once."""
    arguments = ["method=kd", *small_arguments, *LONG, f"tracker={tracker}", f"output_dir={tmp_path}"]
    process = started(*arguments)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not list(tmp_path.glob("*/*/checkpoints/checkpoint-50")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.2)  # some steps beyond the checkpoint
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert "Going on from checkpoint-" in (run / "run.log").read_text(encoding="utf-8")
    expected = lines_of(run)
    assert sum("train/loss" in scalars for scalars in expected.values()) == 75
    if tracker == "wandb":
        log = Log(run)
        assert log.run["run_id"] == run.name
        logged = {row["_step"]: row for row in log.history}
        assert len(logged) == len(log.history)
        assert list(logged) == sorted(expected)
        for step, scalars in expected.items():
            assert {name: logged[step][name] for name in scalars} == scalars
        times = [row["_timestamp"] for row in log.history]
        assert times == sorted(times)
        assert log.of("exit")[0].get("exit_code", 0) == 0
    else:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        for name in ("train/loss", "validation/nll_per_token", "train/tokens"):
            points = [(event.step, event.value) for event in events.Scalars(name)]
            there = sorted((step, scalars[name]) for step, scalars in expected.items() if name in scalars)
            assert points == [(step, pytest.approx(value)) for step, value in there]


# ---- secrets

KEY = "0123456789abcdef" * 2 + "01234567"
HUB = "hf_" + "Abcdefghij" * 3
OTHER = "correct-horse-battery-staple"
IN_CONFIG = "hf_" + "Zyxwvutsrq" * 3
PASSWORD = "wordless"
SECRETS = (KEY, HUB, OTHER, IN_CONFIG, PASSWORD)

EXPERIMENT = f"""# @package _global_
defaults:
  - override /method: kd
tracker:
  group: https://me:{PASSWORD}@host/group
  tags: [mine, {OTHER}, {IN_CONFIG}]
  job_type: https://host/?token={PASSWORD}
"""


@pytest.fixture
def planted(tmp_path: Path, small_pair: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Secrets in the environment and in a config file; the arguments that choose that file."""
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # a writer that this process started has other folders
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HF_TOKEN", HUB)
    monkeypatch.setenv("SOME_SERVICE_TOKEN", OTHER)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work" / "tmp"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "work" / "data"))
    (tmp_path / "work" / "tmp").mkdir(parents=True)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "planted.yaml").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / IN_CONFIG).symlink_to(small_pair)
    model = f"model:\n  teacher:\n    path: {tmp_path / IN_CONFIG}/teacher\n"
    (tmp_path / "conf" / "experiment" / "paths.yaml").write_text(EXPERIMENT + model, encoding="utf-8")
    return ["--config-dir", str(tmp_path / "conf")]


def no_secret_below(folder: Path, files: int) -> None:
    """In no file, whatever its kind, and in no name."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert len(found) >= files
    for file in found:
        content = file.read_bytes()
        for secret in SECRETS:
            assert secret.encode() not in content, f"{secret} in {file}"
            assert secret not in str(file.relative_to(folder))


@pytest.mark.parametrize("tracker", ["wandb", "tensorboard"])
@pytest.mark.parametrize("experiment", ["planted", "paths"])
def test_no_secret_of_a_run_is_written(
    tracker: str,
    experiment: str,
    planted: list[str],
    small_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
) -> None:
    arguments = [word for word in small_arguments if experiment != "paths" or "teacher.path" not in word]
    arguments = [*planted, f"experiment={experiment}", "model=custom", "data=jsonl", *arguments, *SHORT]
    done = run_command(*arguments, f"tracker={tracker}", cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "work" / "outputs")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["tracker"]["group"] == "https://***@host/group"
    assert config["tracker"]["tags"] == ["mine", "***", "***"]
    no_secret_below(tmp_path / "work", files=20)
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr


def test_no_secret_of_a_traceback_is_written(
    planted: list[str], small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Somebody's metric logs all that it can and ends in an error of no kind that we know."""
    (tmp_path / "leak.py").write_text(
        "import logging, os\n"
        "from typing import ClassVar\n"
        "from distil.metrics.base import Metric, Value, register_metric\n"
        "@register_metric('leak')\n"
        "class Leak(Metric):\n"
        '    """Tells."""\n'
        "    values: ClassVar = {'leak': Value('', True, '.3f', 'x')}\n"
        "    requires = frozenset()\n"
        "    def compute(self, observed):\n"
        f"        told = os.environ['SOME_SERVICE_TOKEN'] + ' https://me:{PASSWORD}@host/ {IN_CONFIG}'\n"
        "        for name in ('distil', 'urllib3', 'distil_plugin_leak'):\n"
        "            logging.getLogger(name).error('asked %s', told)\n"
        "        try:\n"
        "            raise KeyError(told)\n"
        "        except KeyError as error:\n"
        "            raise ZeroDivisionError(f'\\x1b[31mno answer from {told}') from error\n",
        encoding="utf-8",
    )
    arguments = [*planted, "experiment=planted", "model=custom", "data=jsonl", *small_arguments, *SHORT]
    arguments += [f"run.plugins=[{tmp_path / 'leak.py'}]", "eval.metrics=[likelihood,leak]"]
    done = run_command(*arguments, "tracker=wandb", cwd=tmp_path / "work")
    assert done.returncode == 1, done.stderr
    run = only_run(tmp_path / "work" / "outputs")
    assert "no answer from ***" in read(run, "status.json")["reason"]
    log = (run / "run.log").read_text(encoding="utf-8")
    assert "Traceback" in log
    assert "\x1b" not in log
    assert "ZeroDivisionError" in done.stderr
    assert "\x1b[31m" not in done.stderr
    no_secret_below(tmp_path / "work", files=6)
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr


def test_no_secret_of_a_sweep_is_written(
    planted: list[str], small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """A job that fails on the way, too; and what W&B recorded is said in one line for all jobs."""
    arguments = [*planted, "-m", "experiment=planted", "model=custom", "data=jsonl", *small_arguments, *SHORT]
    rates = ["trainer.learning_rate=1e30,1e-2", "trainer.max_grad_norm=0"]
    done = run_command(*arguments, *rates, "tracker=wandb", cwd=tmp_path / "work")
    assert done.returncode == 1, done.stderr
    folder = tmp_path / "work" / "outputs" / "default"
    assert [job["status"] for job in read(folder, "sweep.json")["jobs"]] == ["failed", "done"]
    no_secret_below(tmp_path / "work", files=40)
    said = done.stdout + done.stderr
    for secret in SECRETS:
        assert secret not in said
    assert said.count("wandb sync") == 1
    assert "W&B: 2 runs recorded offline." in done.stdout
    assert "wandb sync outputs/default/*/wandb/offline-run-*" in done.stdout
    assert "wandb:" not in said
    for job in read(folder, "sweep.json")["jobs"]:
        log = Log(folder / job["run"])
        assert log.run["run_group"] == redact(f"https://me:{PASSWORD}@host/group")


@pytest.mark.parametrize(
    "argument",
    [
        f"tracker.tags=[{HUB}]",
        f"trainer.hub_token={PASSWORD}",
        f"data.train_file=https://me:{PASSWORD}@host/rows.jsonl",
        f"tracker.group={OTHER}",
        f"+hydra.sweeper.params.trainer.hub_token={IN_CONFIG}",
    ],
)
@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
def test_a_secret_on_the_command_line_is_refused(
    argument: str, sweep: list[str], planted: list[str], run_command: Command, tmp_path: Path
) -> None:
    done = run_command(*sweep, argument, cwd=tmp_path / "work")
    assert done.returncode == 2
    assert "is a secret" in done.stderr
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr
    assert not (tmp_path / "work" / "outputs").exists()


def test_a_secret_among_the_parameters_of_a_sweep_is_refused(
    planted: list[str], run_command: Command, tmp_path: Path
) -> None:
    """From a file they reach sweep.json as the overrides of a job."""
    (tmp_path / "conf" / "sweep").mkdir()
    (tmp_path / "conf" / "sweep" / "tokens.yaml").write_text(
        f"# @package _global_\nhydra:\n  sweeper:\n    params:\n      tracker.group: {IN_CONFIG},abc\n",
        encoding="utf-8",
    )
    done = run_command(*planted, "-m", "sweep=tokens", cwd=tmp_path / "work")
    assert done.returncode == 2, done.stderr
    assert "tracker.group=… is a secret" in done.stderr
    assert IN_CONFIG not in done.stdout + done.stderr
    assert not (tmp_path / "work" / "outputs").exists()
