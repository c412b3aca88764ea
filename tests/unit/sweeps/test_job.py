"""A job says what it came to, and what it says may end in a file: no secret is in it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from distil.config.schema import ExperimentConfig
from distil.run_log import log_file, said_once
from distil.sweeps.job import run_job
from distil.sweeps.record import FAILED, Job, SweepRecord

TOKEN = "s3rvice-7f1c2a9b44d0"


def broken() -> ExperimentConfig:
    """As a plugin that puts what it was given into its message."""
    try:
        os.environ["SOME_SERVICE_TOKEN"].index("no such part")
    except ValueError as error:
        raise RuntimeError(f"refused: {os.environ['SOME_SERVICE_TOKEN']}") from error
    raise AssertionError


def test_no_token_is_in_what_a_failure_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Launchers keep what is printed in logs: the traceback and its places are there, the token is not."""
    monkeypatch.setenv("SOME_SERVICE_TOKEN", TOKEN)
    record = SweepRecord(tmp_path, "key")
    record.begin("python run.py -m seed=0", [Job(["seed=0"], "seed=0")])
    run_job(record, ["seed=0"], broken, "python run.py seed=0")
    said = "".join(capfd.readouterr())
    assert "Traceback (most recent call last)" in said
    assert "in broken" in said
    assert "RuntimeError: refused: ***" in said
    assert record.jobs()[0].status == FAILED
    record.end(FAILED)
    written = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [text for text in [said, *written] if TOKEN in text]


def test_what_one_job_has_shown_the_next_keeps_in_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its config, that is: another line is shown, and so is what happened to the next job as well."""

    def job(name: str, *lines: str) -> str:
        logger = logging.getLogger("distil.training")
        with log_file(tmp_path / name):
            for line in lines:
                logger.warning("%s", line, extra={"said_once": True})
            logger.warning("checkpoint-20 is damaged")
        assert (tmp_path / name).read_text(encoding="utf-8").count("WARNING") == len(lines) + 1
        said = capsys.readouterr().err
        assert said.endswith("warning: checkpoint-20 is damaged\n")
        return said.removesuffix("warning: checkpoint-20 is damaged\n")

    with said_once():
        assert job("first", "no warm-up", "no warm-up") == "warning: no warm-up\n"
        assert job("second", "no warm-up", "a jump") == "warning: a jump\n"
    assert job("alone", "no warm-up", "a jump") == "warning: no warm-up\nwarning: a jump\n"
