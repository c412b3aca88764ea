"""The search for a rate through the real command: the better region, after a kill too, and compared."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.conftest import Command, started
from tests.end_to_end.test_sweeps import told

TRIALS = 4
SEARCH = ["hydra/sweeper=search_rates", f"hydra.sweeper.trials={TRIALS}"]
REGIONS = "trainer.learning_rate=tag(log,interval(1e-6,1e-1))"
"""Two trials in each half to begin with: below 3e-4 a run of fourteen steps learns next to nothing."""


@pytest.fixture(scope="module")
def arguments(small_arguments: list[str]) -> list[str]:
    kept = [word for word in small_arguments if not word.startswith("trainer.learning_rate")]
    return ["-m", *kept, "trainer.max_steps=14", "eval.generation_rows=2", "eval.metrics=[likelihood]"]


def choices(folder: Path) -> Any:
    return json.loads((folder / "search.json").read_text(encoding="utf-8"))["choices"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_better_region_is_found_also_after_a_kill_and_compared(
    arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    command = [*arguments, *SEARCH, REGIONS, "method=sft,kd", "name=rates"]
    done = run_command(*command, f"output_dir={tmp_path / 'peace'}", timeout=900)
    assert done.returncode == 0, done.stderr
    peace = tmp_path / "peace" / "rates"
    assert f"{TRIALS} trials for each of 2 choices" in done.stdout
    assert done.stderr.count(" (test rows)") == 2 * TRIALS, "a search goes by other rows"
    for choice, method in zip(choices(peace), ("sft", "kd"), strict=True):
        scores = {row["values"]["trainer.learning_rate"]: row["score"] for row in choice["trials"]}
        assert len(scores) == TRIALS, "the same budget"
        best = min(scores, key=scores.__getitem__)
        assert choice["best"] == [f"trainer.learning_rate={best}"]
        assert best > 3e-4
        assert choice["score"] == scores[best] < min(scores[rate] for rate in scores if rate < 3e-4) - 0.1
        found = (peace / "found" / "tuned" / f"custom_{method}.yaml").read_text(encoding="utf-8")
        assert yaml.safe_load(found) == {"trainer": {"learning_rate": best}}
    assert {job["status"] for job in told(peace)["jobs"]} == {"done"}
    assert len(told(peace)["jobs"]) == 2 * TRIALS

    killed, log = tmp_path / "killed" / "rates", tmp_path / "log"
    process = started(*command, f"output_dir={tmp_path / 'killed'}", log=log)
    deadline = time.monotonic() + 900
    while len(list(killed.glob("*/results.json"))) < 3:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = run_command(*command, f"output_dir={tmp_path / 'killed'}", timeout=900)
    assert done.returncode == 0, done.stderr
    assert choices(killed) == choices(peace)
    assert len(list(killed.glob("*/results.json"))) == 2 * TRIALS

    comparison = ["method=sft,kd", "seed=0", "--config-dir", str(peace / "found"), f"output_dir={tmp_path}"]
    done = run_command(*arguments, *comparison, timeout=900)
    assert done.returncode == 0, done.stderr
    for choice, run in zip(choices(peace), told(tmp_path / "default")["jobs"], strict=True):
        config = yaml.safe_load((tmp_path / "default" / run["run"] / "config.yaml").read_text("utf-8"))
        rate = config["trainer"]["learning_rate"]
        assert choice["best"] == [f"trainer.learning_rate={rate}"]
        environment = json.loads((tmp_path / "default" / run["run"] / "environment.json").read_text("utf-8"))
        assert [read["sets"] for read in environment["tuned"]] == [{"trainer.learning_rate": rate}]
    assert "Nothing differs but what was swept and what belongs to it." in done.stdout
    apart = len({str(choice["best"]) for choice in choices(peace)}) > 1
    assert ("tuned, declared  trainer.learning_rate" in done.stdout) == apart, "said, and no confound"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.learning_rate=1e-3", "method=sft,kd"], "Nothing is searched: give a key an interval"),
        (["trainer.learning_rate=interval(1e-2,1e-3)"], "an interval rises"),
        (["trainer.learning_rate=tag(log,interval(0,1e-3))"], "from above 0"),
        (["seed=0,1"], "A search has one seed"),
        (
            ["trainer.learning_rate=1e-3", "method=srkl,kd", "method.skew=interval(0.1,0.3)"],
            "Nothing is searched for method=kd, which lacks",
        ),
        (["hydra.sweeper.trials=0"], "hydra.sweeper.trials must be at least 1"),
        (["hydra.sweeper.objective=rouge"], "hydra.sweeper.objective=rouge is unknown"),
        (["trainer.eval_strategy=no"], "a search goes by the evaluation during training"),
        (["method=sft,kdd"], "kdd"),
        (["method.temperature=interval(-1,2)"], "method.temperature"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_search_that_makes_no_sense_starts_nothing(
    words: list[str], said: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from distil.cli import main

    assert main(["run", *arguments, "hydra/sweeper=search_rates", *words, f"output_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_each_choice_searches_the_keys_that_it_has(
    arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    words = ["method=srkl,kd", "method.skew=interval(0.1,0.3)", "hydra.sweeper.trials=1"]
    done = run_command(
        *arguments, "hydra/sweeper=search_rates", *words, "trainer.max_steps=2", f"output_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    assert "method.skew is a key of method=srkl: method=kd goes without it." in done.stdout
    keys = [{word.partition("=")[0] for word in each["best"]} for each in choices(tmp_path / "default")]
    assert keys == [{"trainer.learning_rate", "method.skew"}, {"trainer.learning_rate"}]


def test_a_search_that_breaks_off_does_not_run_for_ever(arguments: list[str], tmp_path: Path) -> None:
    """As far as ``sweep.json`` says; what broke it is said by the command."""
    from distil.cli import main

    (tmp_path / "rates" / "search.journal").mkdir(parents=True)  # in the way
    assert main(["run", *arguments, *SEARCH, f"output_dir={tmp_path}", "name=rates"]) not in (0, 2)
    ended = told(tmp_path / "rates")
    assert ended["status"] == "failed"
    assert ended["finished"] is not None
    assert not (tmp_path / "rates" / ".sweep").exists()


def test_ctrl_c_says_how_many_trials_were_asked(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distil.cli import main
    from distil.sweeps import launching

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "run_job", stopped)
    assert main(["run", *arguments, *SEARCH, "method=sft,kd", f"output_dir={tmp_path}", "name=rates"]) == 130
    assert f"Stopped with 0 of {2 * TRIALS} jobs done" in capsys.readouterr().err
    assert told(tmp_path / "rates")["status"] == "interrupted"


def test_a_trial_without_a_finite_score_is_said(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is done, and it can be nobody's best."""
    from distil.cli import main
    from distil.sweeps import launching
    from distil.sweeps.record import DONE, SweepRecord

    scores = iter(("Infinity", "0.5"))

    def ended(record: SweepRecord, overrides: list[str], *_: object) -> None:
        job = next(job for job in record.jobs() if job.overrides == overrides)
        folder = record.folder / str(job.run)
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(f'{{"validation/nll_per_token": {next(scores)}}}\n', "utf-8")
        job.status = DONE
        record.report(job)

    monkeypatch.setattr(launching, "run_job", ended)
    two = "hydra.sweeper.trials=2"
    assert main(["run", *arguments, *SEARCH, two, "method=kd", f"output_dir={tmp_path}", "name=rates"]) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "finite" in line]
    assert "nll_per_token is inf" in said
    (found,) = choices(tmp_path / "rates")
    assert [trial["score"] for trial in found["trials"]] == [None, 0.5]
    assert found["score"] == 0.5


@pytest.mark.parametrize(
    ("option", "extra", "package"),
    [
        ("hydra/launcher=local_joblib", "joblib", "hydra_joblib_launcher"),
        ("hydra/launcher=cluster_slurm", "submitit", "hydra_submitit_launcher"),
        ("hydra/launcher=local_ray", "ray", "ray"),
        ("hydra/sweeper=search_rates", "optuna", "optuna"),
    ],
)
def test_a_missing_extra_is_said_before_any_job(
    option: str,
    extra: str,
    package: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distil.cli import main
    from distil.sweeps import launchers

    find = launchers.find_spec
    monkeypatch.setattr(launchers, "find_spec", lambda name: None if package in name else find(name))
    assert main(["run", *arguments, option, "method=sft,kd", f"output_dir={tmp_path}"]) == 2
    assert f"[{extra}]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
