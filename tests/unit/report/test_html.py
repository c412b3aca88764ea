"""The page as text: what it holds, and that no text of data or models becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from distil.report import palette
from distil.report.html import LONGEST, shorten, write_report
from tests.unit.report.made_up_run import METRICS, SAMPLES, write_run

VOID = {"meta", "link", "line", "path", "circle"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def report(folder: Path, **kwargs: Any) -> Page:
    return Page(write_report(write_run(folder, **kwargs)))


def test_everything_of_a_full_run(tmp_path: Path) -> None:
    page = report(tmp_path)
    for name, (_, _, spec, *scores, _) in METRICS.items():
        assert name in page.text
        assert all(format(score, spec) in page.text for score in scores)
    for sample in SAMPLES:
        assert all(text in page.text for text in sample)
    for expected in (
        "python run.py method=kd",
        "2.13.0",
        "git checkout 9f31c2d5a7be",
        "1 min 35 s",
        "learning_rate: 0.003",
    ):
        assert expected in page.text
    assert "were left out: 3 without a scored token" in page.text
    curves = [attributes for tag, attributes in page.tags if tag == "svg" and attributes["class"] == "curve"]
    assert len(curves) == 6


@pytest.mark.parametrize("hostile", [False, True])
def test_the_page_asks_for_nothing_and_runs_nothing(tmp_path: Path, hostile: bool) -> None:
    page = report(tmp_path, hostile=hostile)
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    style = page.source.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]
    assert not {"script", "img", "iframe", "object", "embed", "a", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")
        ]
    assert [a["href"] for _, a in page.tags if "href" in a] == ["data:,"]


def test_hostile_texts_are_text(tmp_path: Path) -> None:
    page = report(tmp_path, hostile=True)
    for expected in (
        "<script>alert(1)</script>",
        "{{7*7}} {% raw %} ${7*7} [red]not red[/red] [/]",
        "\ufffd[31mescape\ufffd[0m \ufffdbell \ufffdright to left \ufffd lone",
        "東京の夜",
        "(21,000 characters)",
    ):
        assert expected in page.text
    assert "not committed" in page.text


def test_names_and_notes_are_escaped_too(tmp_path: Path) -> None:
    run = write_run(tmp_path, status="failed", reason="<u>bad</u>", results=False)
    for name in ("config.yaml", "status.json", "environment.json", "metrics.jsonl"):
        text = (run / name).read_text().replace("kd", "<i>kd</i>").replace("train/loss", "train/<i>loss")
        (run / name).write_text(text)
    (run / "samples.jsonl").write_text("{<i>")
    page = Page(write_report(run))
    assert not {"i", "u"} & {tag for tag, _ in page.tags}
    assert "<u>bad</u>" in page.text
    assert "method=<i>kd</i>" in page.text


def test_an_interrupted_run_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    page = report(tmp_path, status="interrupted", reason="Ctrl-C at step 250", results=False)
    assert "This run was interrupted: Ctrl-C at step 250" in page.text
    assert "goes on from its last checkpoint" in page.text
    assert "table" not in {tag for tag, _ in page.tags}


def test_no_teacher_no_column(tmp_path: Path) -> None:
    page = report(tmp_path, teacher=False)
    assert "student before" in page.text
    assert not [a for _, a in page.tags if "teacher" in (a.get("class") or "")]


def test_numbers_that_are_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "results.json").write_text(
        '{"metrics": {"nll": {"higher_is_better": false}}, "teacher": {}, "student_before": {"nll": null},'
        ' "student_after": {"nll": NaN}, "floor": {"nll": null}}'
    )
    (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": NaN}\n')
    page = Page(write_report(run))
    assert "train/loss: no finite value" in page.text
    assert "nll ↓ – – – –" in page.text


def test_a_run_that_was_too_short_to_draw_says_so(tmp_path: Path) -> None:
    """One dot, or an empty picture, is no curve; the numbers are said all the same."""
    run = write_run(tmp_path)
    lines = '{"step": 8, "train/loss": 0.5}\n{"step": 8, "validation/nll_per_token": 0.4}\n'
    (run / "metrics.jsonl").write_text(lines)
    page = Page(write_report(run))
    assert not [a for tag, a in page.tags if tag == "svg" and a["class"] == "curve"]
    assert "Too few values for a curve" in page.text
    assert "validation/nll_per_token 0.4 at step 8; train/loss 0.5 at step 8." in page.text
    assert "running mean" not in page.text, "of pictures that are there"
    (run / "metrics.jsonl").write_text(lines + '{"step": 9, "train/loss": 0.3}\n')
    page = Page(write_report(run))
    assert len([a for tag, a in page.tags if tag == "svg" and a["class"] == "curve"]) == 1
    assert "validation/nll_per_token 0.4 at step 8." in page.text


@pytest.mark.parametrize("taken", [True, False])
def test_scores_that_another_run_found_are_told_in_the_report(tmp_path: Path, taken: bool) -> None:
    run = write_run(tmp_path)
    if taken:
        cost = json.loads((run / "cost.json").read_text())
        more = {"scores_taken_over": {"teacher": "<b>other</b>"}}
        (run / "cost.json").write_text(json.dumps(cost | more))
    page = Page(write_report(run))
    assert ("those of the teacher are from <b>other</b>" in page.text) is taken


def test_the_report_of_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    page = Page(write_report(tmp_path))
    assert "How this run ended is not known." in page.text


def test_the_report_is_the_same_every_time(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_shorten() -> None:
    assert shorten("x" * LONGEST) == "x" * LONGEST
    assert shorten("x" * (LONGEST + 1)) == "x" * LONGEST + f"… ({LONGEST + 1:,} characters)"


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_marks_stand_out_from_their_page() -> None:
    for role in palette.ROLES:
        assert 1.05 / (luminance(role.light) + 0.05) >= 2
        assert (luminance(role.dark) + 0.05) / (luminance("#15181C") + 0.05) >= 3
        assert 1.05 / (luminance(role.terminal) + 0.05) >= 3
        assert (luminance(role.terminal) + 0.05) / 0.05 >= 4.5
