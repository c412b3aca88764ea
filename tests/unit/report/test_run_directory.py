"""Reading a run directory: whatever a run left behind is read; what is not a run is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from distil.report.run_directory import read_run
from distil.system.printable import printable
from distil.types import InputError
from tests.unit.report.made_up_run import HOSTILE, METRICS, write_run


def test_a_full_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    assert run.status == "done"
    assert run.results is not None
    assert run.results.teacher is not None
    assert [metric.name for metric in run.results.metrics] == list(METRICS)
    assert run.results.after["perplexity"] == 1.35
    assert run.config["method"]["name"] == "kd"
    assert [step for step, _ in run.curves["train/loss"]] == list(range(1, 601))
    assert len(run.samples) == 4
    assert run.student == run.path / "student"
    assert run.problems == ()


def test_no_teacher(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, teacher=False))
    assert run.results is not None
    assert run.results.teacher is None
    assert all(sample.teacher is None for sample in run.samples)


def test_an_interrupted_run_has_no_results(tmp_path: Path) -> None:
    folder = write_run(tmp_path, status="interrupted", reason="Ctrl-C", results=False)
    run = read_run(folder)
    assert (run.status, run.reason) == ("interrupted", "Ctrl-C")
    assert run.results is None
    assert run.cost is None
    assert run.student is None


def test_only_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    run = read_run(tmp_path)
    assert run.status == "unknown"
    assert run.config == {"seed": 3}


@pytest.mark.parametrize("content", ["{}", '{"status": null}', '{"status": ["done"]}', '{"status": "dnoe"}'])
def test_a_status_that_says_nothing_is_damage(tmp_path: Path, content: str) -> None:
    folder = write_run(tmp_path)
    (folder / "status.json").write_text(content)
    assert read_run(folder).problems == ("status.json does not say how the run ended.",)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_what_is_not_a_run_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        read_run(tmp_path / name)


def test_the_run_around_or_below_what_is_none_is_named(tmp_path: Path) -> None:
    """``distil generate outputs`` and ``…/student`` mean a run, of several most likely the newest."""
    runs = [write_run(tmp_path / "outputs" / name) for name in ("new", "old")]
    for age, run in enumerate(runs):
        os.utime(run / "status.json", (1e9 - age, 1e9 - age))
    for folder, meant in (
        (tmp_path / "outputs", f"{runs[0]}, the newest below it?"),
        (tmp_path / "outputs" / "old", f"{runs[1]}, the newest below it?"),
        (runs[1] / "student", f"{runs[1]}?"),
    ):
        with pytest.raises(InputError, match=re.escape(f"Did you mean {meant}")):
            read_run(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json", '{"metrics": '),
        ("results.json", "[1]"),
        ("cost.json", "\x00"),
        ("environment.json", "null"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "- a\n"),
        ("metrics.jsonl", '{"step": 1, "train/loss": 2.0}\n{"step": 2, "tra'),
        ("samples.jsonl", "7\n"),
        ("samples.jsonl", "[" * 100_000),
    ],
)
def test_a_broken_file_is_named_and_the_rest_is_read(tmp_path: Path, name: str, text: str) -> None:
    folder = write_run(tmp_path)
    (folder / name).write_text(text)
    run = read_run(folder)
    assert run.status == "done"
    assert len(run.problems) == 1
    assert run.problems[0].startswith(name)


def test_lines_written_again_after_a_resume_count_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    lines = [{"step": step, "train/loss": loss} for step, loss in ((1, 5.0), (2, 4.0), (3, 9.0), (2, 3.5))]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_run(folder).curves == {"train/loss": ((1, 5.0), (2, 3.5), (3, 9.0))}


def test_numbers_that_are_none_become_none(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "train/loss": NaN}\n{"step": 2, "train/loss": Infinity}\n{"step": null, "train/x": 1}\n'
    )
    (folder / "results.json").write_text('{"metrics": {"nll": {}}, "student_after": {"nll": NaN}}')
    run = read_run(folder)
    assert run.curves == {"train/loss": ((1, None), (2, None))}
    assert run.results is not None
    assert run.results.after == {"nll": None}
    assert run.problems == ()


def test_texts_come_back_as_written(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, hostile=True))
    assert [sample.after for sample in run.samples[: len(HOSTILE)]] == HOSTILE


def test_printable_keeps_language_and_drops_control() -> None:
    assert printable("Zürich\n東京 مرحبا 👩\u200d🚀\t.") == "Zürich\n東京 مرحبا 👩\u200d🚀\t."
    assert printable("a\r\nb") == "a\nb"
    assert printable("\x1b[31m\x07\ud800\u202e\x9b") == "\ufffd[31m\ufffd\ufffd\ufffd\ufffd"
