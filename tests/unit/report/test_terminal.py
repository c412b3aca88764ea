"""The summary as plain text: nothing leaves the screen, nothing in a text takes effect."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from distil.report.html import write_report
from distil.report.run_directory import read_run
from distil.report.terminal import print_summary
from tests.unit.report.made_up_run import METRICS, write_run

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "no teacher": {"teacher": False},
    "hostile": {"hostile": True},
    "interrupted": {"status": "interrupted", "reason": "Ctrl-C at step 250", "results": False},
    "failed": {"status": "failed", "reason": "[red]loss[/red] is NaN at step 7 " * 40, "results": False},
}


def summary(run: Path, width: int = 120, **console: Any) -> str:
    file = io.StringIO()
    print_summary(read_run(run), Console(file=file, width=width, **console))
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_screen(tmp_path: Path, case: str, width: int) -> None:
    """But for those that are there to be copied: they are whole, and wrapped by the screen."""
    run = write_run(tmp_path, **CASES[case])
    text = summary(run, width)
    lines = text.splitlines()
    copied = [line for line in lines if line.startswith(("report ", "student  ", "go on with"))]
    assert max(cell_len(line) for line in lines if line not in copied) <= width
    assert (
        any(line.split()[-1] == f"{run / 'report.html'}" for line in copied)
        == (run / "report.html").is_file()
    )
    assert "\x1b" not in text


def test_every_number_is_there(tmp_path: Path) -> None:
    lines = summary(write_run(tmp_path), 80).splitlines()
    for name, (_, _, spec, *scores, _) in METRICS.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert all(format(score, spec) in line for score in scores)
    assert "kl_to_teacher ↓ nats/token" in "\n".join(lines)
    (line,) = [line for line in lines if line.startswith("perplexity")]
    assert line.split() == ["perplexity", "↓", "1.28", "2.23", "1.35", "-0.88", "better", "1.27"]


def test_without_a_teacher_there_is_no_such_column(tmp_path: Path) -> None:
    text = summary(write_run(tmp_path, teacher=False))
    head, _, rest = text.partition("───")
    assert "teacher" not in head
    assert "before" in head
    assert "student after" in rest


def test_how_few_rows_were_evaluated_and_who_evaluated_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    usual = summary(run, 400)
    assert "Evaluated on the same 256 rows of the test split (13,922 scored tokens); 64 of them" in usual
    assert "are few" not in usual
    for name, more in (
        ("results.json", {"evaluation": {"split": "test", "rows": 8, "generation_rows": 8}}),
        ("cost.json", {"scores_taken_over": {"student_before": "sft-s0"}}),
    ):
        told = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(told | more))
    text = summary(run, 400)
    assert "Evaluated on the same 8 rows of the test split; 8 of them answered" in text
    assert "8 rows are few" in text
    assert "those of the untouched student are from sft-s0" in text


def test_why_no_metric_was_computed_is_said_in_place_of_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    told = json.loads((run / "results.json").read_text())
    why = "rouge is left out: this evaluation has no generations."
    (run / "results.json").write_text(json.dumps(told | {"metrics": {}, "notes": [why]}))
    text = summary(run, 400)
    assert "No metric was computed." in text
    assert f"Note: {why}" in text
    assert "higher is better" not in text


def test_markup_and_escapes_in_texts_are_shown_as_text(tmp_path: Path) -> None:
    text = summary(write_run(tmp_path, hostile=True), 240, force_terminal=True, color_system="truecolor")
    assert "[red]not red[/red] [/]" in text
    assert "{{7*7}}" in text
    assert ":smile:" in text
    assert "\x1b[31mescape" not in text
    assert "\ufffd[31mescape" in text


def test_reason_and_the_way_on(tmp_path: Path) -> None:
    text = summary(write_run(tmp_path, **CASES["interrupted"]))
    assert "interrupted: Ctrl-C at step 250" in text
    assert "go on with  python run.py method=kd" in text
    run = read_run(write_run(tmp_path / "afresh", **CASES["interrupted"]))
    afresh = replace(run, command=f"{run.command} run.resume=false", config={"run": {"resume": False}})
    assert afresh.way_on == run.way_on == run.command


def test_paths_can_be_copied(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "report.html" not in summary(run)
    report = write_report(run)
    text = summary(run, 400)
    assert str(report) in text
    assert f"{run / 'student'}/" in text
    assert str(report) in summary(run, 40).replace(" ", "").replace("\n", "")


def test_an_ascii_console_gets_ascii(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as file:
        print_summary(read_run(write_run(tmp_path, hostile=True)), Console(file=file, width=120))
        file.flush()
        assert b"perplexity v" in raw.getvalue()
