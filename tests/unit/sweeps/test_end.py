"""The end of a sweep: nothing that was asked for is missing from the comparison's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from distil.sweeps.end import finish
from distil.sweeps.record import DONE, FAILED, Job, SweepRecord
from distil.types import DistilError
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
        finish(record, "python run.py -m seed=0,1,2,3")
    left_out = {each["run"]: each["why"] for each in read(tmp_path / "comparison.json")["left_out"]}
    assert left_out == {"seed=2": "failed: Out of memory. Halve it.", "seed=3": "failed"}
    assert "Left out  seed=2" in capsys.readouterr().out
