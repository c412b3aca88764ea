"""comparison.html in headless Chromium: whole at every width, its keys, its sorting, and two hundred runs."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from distil.report.comparison import compare, write_comparison
from tests.browser import NEEDED, SCREENSHOTS, Browser
from tests.unit.report.made_up_sweep import METRICS, validation, write_job

pytestmark = NEEDED

STATE = """shown = [...document.querySelectorAll('svg.curve, svg.dots')]
    .filter(s => s.getBoundingClientRect().width > 0); ({
    scripts: document.scripts.length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    outside: shown.flatMap(s => [...s.querySelectorAll('text, use, path')].filter(part => {
        const a = part.getBoundingClientRect(), b = s.getBoundingClientRect();
        return a.left < b.left - 3 || a.right > b.right + 3 || a.top < b.top - 3 || a.bottom > b.bottom + 3;
    })).map(part => part.outerHTML),
    drawn: shown.length,
})"""
ROWS = """[...document.querySelector('table.sortable').querySelectorAll('tbody.groups th')]
    .map(head => head.textContent)"""
SAMPLE = """[...document.querySelectorAll('#samples article')]
    .map((card, i) => card.offsetHeight > 0 ? i : -1).filter(i => i >= 0)"""
PANELS = """[...document.querySelectorAll('[data-panel^="axis"]')]
    .filter(panel => panel.offsetHeight > 0).map(panel => panel.dataset.panel)"""
TOO_WIDE = """[...document.querySelectorAll('table')]
    .filter(table => table.getBoundingClientRect().right > innerWidth).length"""


def write_case(folder: Path, hostile: bool = False) -> Path:
    """Four methods and three seeds: kd ahead, gkd with it, revkd not to be told from sft."""
    chance = random.Random(0)
    for method, nll, seconds in (("sft", 0.55, 12), ("kd", 0.31, 25), ("revkd", 0.56, 26), ("gkd", 0.30, 88)):
        for seed in (0, 1, 2):
            value = nll + chance.gauss(0, 0.012)
            scores = {"nll": value, "accuracy": 1.2 - value, "response_tokens": 44 + chance.gauss(0, 1)}
            curve = validation(seed, seconds, best=nll)
            took = seconds * chance.gauss(1, 0.03)
            write_job(folder, method, seed, scores, seconds=took, curve=curve, hostile=hostile)
    if hostile:
        write_job(folder, "kd", 9, {"nll": 0.3}, status="failed", reason="<script>alert(1)</script>")
        changes = {"trainer.max_steps": 9, "x.y": "<script>alert(2)</script>"}
        write_job(folder, "mine", 0, {"nll": 0.5}, changes=changes)
    return folder


def press(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        browser.send("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("hostile", [False, True], ids=["plain", "hostile"])
def test_page_is_whole_at_every_width(
    browser: Browser, tmp_path: Path, hostile: bool, width: int, dark: bool
) -> None:
    page = write_comparison(compare([write_case(tmp_path, hostile)]), tmp_path)
    browser.open(page, width, dark)
    state = browser.evaluate(STATE)
    name = f"comparison-{'hostile' if hostile else 'plain'}-{width}-{'dark' if dark else 'light'}.png"
    browser.screenshot(SCREENSHOTS / name)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert state["overflow"] <= 0
    assert state["outside"] == []
    assert state["drawn"] >= 5
    assert state["scripts"] == 1
    if hostile:
        text = browser.evaluate("document.body.innerText")
        assert "<script>alert(1)</script>" in text
        assert "<script>alert(2)</script>" in text


def test_a_table_that_is_wider_than_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    """At its right end and where it fits there is nothing more to come."""
    told = "[...document.querySelectorAll('.more')].map(hint => hint.textContent)"
    heights = "[...document.querySelectorAll('tbody.references th')].map(head => head.offsetHeight)"
    scrolled = """new Promise(done => {
        const table = document.querySelector('.scroll');
        table.addEventListener('scroll', () => requestAnimationFrame(done), {once: true});
        table.scrollLeft = table.scrollWidth; })"""
    for method, seed in (("sft", 0), ("sft", 1), ("kd", 0), ("kd", 1)):
        scores = dict.fromkeys(METRICS, 0.5 + seed / 9) | {f"metric_{i}": seed + i / 9 for i in range(9)}
        write_job(tmp_path, method, seed, scores)
    page = write_comparison(compare([tmp_path]), tmp_path)
    browser.open(page, 1280)
    deadline = time.monotonic() + 10
    while not (hint := browser.evaluate(told)[0]) and time.monotonic() < deadline:
        time.sleep(0.05)  # the page measures itself once it is laid out
    assert re.fullmatch(r"[4-9] more columns: scroll →", hint)
    assert len(set(browser.evaluate(heights))) == 1, "no name of a reference is broken"
    browser.send("Runtime.evaluate", expression=scrolled, awaitPromise=True)
    assert browser.evaluate(told)[0] == ""
    browser.open(write_comparison(compare([write_case(tmp_path / "few")]), tmp_path / "few"), 1280)
    assert browser.evaluate(told)[0] == ""
    assert browser.complaints() == []


def test_tables_sort_by_click_and_by_key(browser: Browser, tmp_path: Path) -> None:
    page = write_comparison(compare([write_case(tmp_path)]), tmp_path)
    comparison = compare([tmp_path])
    browser.open(page, 1280)
    assert browser.evaluate(ROWS) == [group.label for group in comparison.groups]
    for i, column in enumerate(comparison.columns):
        means = {group: cell.estimate.mean for group, cell in column.cells.items() if cell.estimate}
        rising = sorted(means, key=means.__getitem__)
        best_first = rising[::-1] if column.metric.higher_is_better else rising
        head = f"document.querySelectorAll('table.sortable thead')[0].querySelectorAll('button')[{i + 1}]"
        browser.evaluate(f"{head}.focus()")
        press(browser, "Enter")
        assert browser.evaluate(ROWS) == best_first
        browser.evaluate(f"{head}.click()")
        assert browser.evaluate(ROWS) == best_first[::-1]
        assert browser.evaluate("document.querySelectorAll('th[aria-sort]').length") == 1


def test_keys_browse_samples_and_pick_groups(browser: Browser, tmp_path: Path) -> None:
    page = write_comparison(compare([write_case(tmp_path)]), tmp_path)
    browser.open(page, 1280)
    assert browser.evaluate(SAMPLE) == [0]
    for key, shown in (
        ("ArrowRight", 1),
        ("j", 2),
        ("ArrowRight", 3),
        ("ArrowRight", 0),
        ("ArrowLeft", 3),
        ("k", 2),
    ):
        press(browser, key)
        assert browser.evaluate(SAMPLE) == [shown], key
    assert browser.evaluate("document.querySelector('#samples output').textContent") == "3 of 4"
    press(browser, "2")
    picked = "[...document.querySelectorAll('.legend [aria-pressed=true]')].map(b => b.textContent)"
    faint = "getComputedStyle(document.querySelector('svg.curve .g0')).opacity"
    assert browser.evaluate(picked) == ["gkd"]
    assert float(browser.evaluate(faint)) < 0.5
    press(browser, "Escape")
    assert browser.evaluate(picked) == []
    assert float(browser.evaluate(faint)) == 1
    assert browser.complaints() == []


def test_tabs_show_one_axis(browser: Browser, tmp_path: Path) -> None:
    page = write_comparison(compare([write_case(tmp_path)]), tmp_path)
    browser.open(page, 1280)
    assert browser.evaluate(PANELS) == ["axis:steps"]
    browser.evaluate("document.querySelector('[data-tabs=axis] button[value=seconds]').click()")
    assert browser.evaluate(PANELS) == ["axis:seconds"]
    assert "At equal seconds" in browser.evaluate("document.body.innerText")
    browser.screenshot(SCREENSHOTS / "comparison-seconds-1280.png")


def test_it_prints(browser: Browser, tmp_path: Path) -> None:
    page = write_comparison(compare([write_case(tmp_path)]), tmp_path)
    browser.open(page, 1047)  # a landscape A4 page less its margins
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.evaluate(SAMPLE) == [0, 1, 2, 3]
        assert browser.evaluate(STATE)["overflow"] <= 0
        assert browser.evaluate(TOO_WIDE) == 0
        browser.screenshot(SCREENSHOTS / "comparison-print.png")
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("groups", [50, 200])
def test_two_hundred_runs_open_in_three_seconds(browser: Browser, tmp_path: Path, groups: int) -> None:
    chance = random.Random(1)
    for group in range(groups):
        for seed in range(200 // groups):
            scores = {name: chance.random() for name in ("nll", "accuracy", "response_tokens")}
            changes: dict[str, Any] = {"trainer.learning_rate": (1 + group // 4) / 1e4}
            write_job(tmp_path, ("sft", "kd", "revkd", "gkd")[group % 4], seed, scores, changes=changes)
    page = write_comparison(compare([tmp_path]), tmp_path)
    seconds = []
    for _ in range(3):  # the quickest: other work on the machine only adds to it
        started = time.monotonic()
        browser.open(page, 1280)
        browser.evaluate("document.body.offsetHeight")
        seconds.append(time.monotonic() - started)
    browser.screenshot(SCREENSHOTS / f"comparison-{groups}-groups.png")
    assert browser.evaluate(STATE)["overflow"] <= 0
    assert browser.complaints() == []
    assert min(seconds) < 3
