"""The end of a sweep: nothing that was asked for is missing from the comparison's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from distil.config.schema import CompareConfig
from distil.report.comparison.budget import KINDS
from distil.sweeps.end import finish
from distil.sweeps.record import DONE, FAILED, Job, SweepRecord
from distil.types import DistilError, InputError
from tests.unit.report.made_up_sweep import read, write_job


def test_a_job_that_left_no_run_directory_is_named_as_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {seed: write_job(tmp_path, "kd", seed, {"nll": 0.3}).name for seed in (0, 1)}
    (tmp_path / "empty").mkdir()
    jobs = [Job([f"seed={seed}"], f"seed={seed}", run, DONE) for seed, run in runs.items()]
    jobs.append(Job(["seed=2"], "seed=2", None, FAILED, "Out of memory.\nHalve it."))
    jobs.append(Job(["seed=3"], "seed=3", "empty", FAILED))
    record = SweepRecord(tmp_path, "key")
    record.begin("python run.py -m seed=0,1,2,3", jobs)
    with pytest.raises(DistilError, match="2 of 4 jobs failed"):
        finish(record, "python run.py -m seed=0,1,2,3", None)
    left_out = {each["run"]: each["why"] for each in read(tmp_path / "comparison.json")["left_out"]}
    assert left_out == {"seed=2": "failed: Out of memory. Halve it.", "seed=3": "failed"}
    assert "Left out  seed=2" in capsys.readouterr().out


def test_a_run_that_is_left_out_is_told_by_what_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's name holds a hash: nobody reads from that which learning rate failed."""
    jobs = []
    for rate in (0.001, 9.0):
        changes = {"trainer.learning_rate": rate}
        status, reason = (DONE, None) if rate < 1 else (FAILED, "Its loss is nan.")
        run = write_job(tmp_path, "kd", 0, {"nll": 0.3}, changes=changes, status=status, reason=reason).name
        words = ["method=kd", f"trainer.learning_rate={rate}"]
        jobs.append(Job(words, words[1], run, status, reason))
    record = SweepRecord(tmp_path, "key")
    record.begin("python run.py -m", jobs)
    with pytest.raises(DistilError, match="1 of 2 jobs failed"):
        finish(record, "python run.py -m", None)
    (left,) = read(tmp_path / "comparison.json")["left_out"]
    assert left == {"run": jobs[1].run, "why": "trainer.learning_rate=9.0: failed: Its loss is nan."}
    assert "trainer.learning_rate=9.0: failed" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("budget", [None, *KINDS])
def test_a_sweep_reads_its_curves_at_the_budget_that_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: str | None
) -> None:
    """What ``compare.budget`` may say is what ``distil compare --budget`` may."""
    assert CompareConfig(budget=budget).budget == budget
    jobs = []
    for method in ("sft", "kd"):
        for seed in (0, 1):
            run = write_job(tmp_path, method, seed, {"nll": 0.3}).name
            jobs.append(Job([f"method={method}", f"seed={seed}"], "", run, DONE))
    record = SweepRecord(tmp_path, "key")
    record.begin("python run.py -m", jobs)
    finish(record, "python run.py -m", budget)
    shown = " ".join(capsys.readouterr().out.split())
    assert ("the most that every run reached" in shown) == (budget is not None)
    assert "nll ↓" in shown
    assert "nll_per_token" not in shown, "one word for it in every table"


def test_a_budget_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match=r"compare\.budget=token is unknown\. Did you mean tokens"):
        CompareConfig(budget="token")
