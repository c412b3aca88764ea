"""report.html in a real browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distil.report.html import write_report
from tests.browser import NEEDED, SCREENSHOTS, Browser
from tests.unit.report.made_up_run import write_run

pytestmark = NEEDED

PAGE_STATE = """hidden = element => getComputedStyle(element).display == "none"; ({
    text: document.body.innerText,
    scripts: document.scripts.length,
    shown: [...document.images].filter(i => i.naturalWidth > 0).length
         + [...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width > 0).length,
    pictures: document.images.length
            + [...document.querySelectorAll('svg')].filter(s => !hidden(s.parentElement)).length,
    empty: [...document.querySelectorAll('svg.curve path')].filter(p => !(p.getBBox().width > 0)).length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
})"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("case", ["done", "hostile", "interrupted"])
def test_page_is_whole_at_every_width(
    browser: Browser, tmp_path: Path, case: str, width: int, dark: bool
) -> None:
    stopped = {"status": "interrupted", "reason": "Ctrl-C at step 250 of 600", "results": False, "steps": 250}
    kwargs: dict[str, Any] = {"done": {}, "hostile": {"hostile": True}, "interrupted": stopped}[case]
    page = write_report(write_run(tmp_path, **kwargs))

    browser.open(page, width, dark)
    state = browser.evaluate(PAGE_STATE)
    browser.screenshot(SCREENSHOTS / f"report-{case}-{width}-{'dark' if dark else 'light'}.png")

    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert state["pictures"] > 0
    assert state["shown"] == state["pictures"]
    assert state["empty"] == 0
    assert state["overflow"] <= 0
    assert state["scripts"] == 0
    if case == "hostile":
        assert "<script>alert(1)</script>" in state["text"]
        assert "{{7*7}}" in state["text"]


def test_report_of_a_real_run(
    browser: Browser,
    small_pair: Path,
    small_arguments: list[str],
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """What the real command leaves, with a script in every row of its data."""
    rows = (small_pair / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    hostile = [json.loads(row) for row in rows]
    for row in hostile:
        row["prompt"] = f"<script>alert(1)</script> {row['prompt']}"
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in hostile), encoding="utf-8")
    arguments = [word for word in small_arguments if not word.startswith("data.")]
    done = run_command(*arguments, f"data.train_file={data}", f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    (page,) = (tmp_path / "out").glob("*/*/report.html")

    browser.open(page, 1280)
    state = browser.evaluate(PAGE_STATE)
    browser.screenshot(SCREENSHOTS / "report-real-1280.png")
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert state["shown"] == state["pictures"] > 0
    assert state["empty"] == 0
    assert state["scripts"] == 0
    assert "<script>alert(1)</script>" in state["text"]
    assert "python run.py" in state["text"]
