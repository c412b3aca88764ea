"""Markup in every text of a run, in the real browser: shown, never taken; and the policy behind that."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from distil.report.comparison import compare, write_comparison
from distil.report.html import write_report
from tests.browser import NEEDED, SCREENSHOTS, Browser
from tests.unit.report.made_up_run import write_run
from tests.unit.report.made_up_sweep import write_job

pytestmark = NEEDED

PAYLOADS = (
    "<script>pwned=1</script>",
    '"><img src=http://192.0.2.1/x onerror=pwned=1>',
    "' onmouseover='pwned=1' autofocus onfocus='pwned=1",
    "'><svg onload=pwned=1>",
    "</style><style>body{display:none}</style>",
    "</title></head><script>pwned=1</script>",
    "--><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<base href=http://192.0.2.1/><meta http-equiv=refresh content='0;url=http://192.0.2.1/'>",
    "</script><script>pwned=1</script>",
    "<a href=javascript:pwned=1>x</a><form action=http://192.0.2.1/><button>x</button></form>",
    "{{7*7}}{% include '/etc/passwd' %}",
    "sha256-of-the-style-sheet",
)
KEPT = {"status", "finished", "format", "started", "name", "split"}
"""Values that decide whether there is a page at all, and the names of groups, which a test of its own has."""
STATE = """({
    pwned: typeof pwned,
    scripts: document.scripts.length,
    styles: document.querySelectorAll('style').length,
    frames: document.querySelectorAll('iframe, base, form, img, a[href^=javascript]').length,
    shown: getComputedStyle(document.body).display,
    background: getComputedStyle(document.body).backgroundColor,
    font: getComputedStyle(document.querySelector('h1')).fontSize,
    text: document.body.innerText,
})"""


def payload(text: str) -> str:
    return PAYLOADS[zlib.crc32(text.encode("utf-8", "surrogatepass")) % len(PAYLOADS)]


def poisoned(value: Any, key: str = "") -> Any:
    """``value`` with markup at the end of every text, and of every name of a metric or a reason."""
    if isinstance(value, dict):
        named = key in (
            "metrics",
            "teacher",
            "student_before",
            "student_after",
            "floor",
            "dropped",
            "versions",
        )
        named = named or any("/" in name for name in value)
        return {
            f"{name}{payload(name)}"
            if named and name not in ("step", "seconds", "tokens")
            else name: poisoned(item, name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    return f"{value}{payload(value)}" if isinstance(value, str) and key not in KEPT else value


def poison(run: Path) -> Path:
    """Every file of a run directory, and its name."""
    for file in run.iterdir():
        if file.suffix == ".json":
            file.write_text(json.dumps(poisoned(json.loads(file.read_text()))), encoding="utf-8")
        elif file.suffix == ".jsonl":
            lines = [json.dumps(poisoned(json.loads(line))) for line in file.read_text().splitlines()]
            file.write_text("\n".join(lines), encoding="utf-8")
        elif file.suffix == ".yaml":
            config = poisoned(yaml.safe_load(file.read_text())) | {PAYLOADS[0]: PAYLOADS[1]}
            config["method"]["name"] += PAYLOADS[1]
            file.write_text(yaml.safe_dump(config), encoding="utf-8")
    named = run.with_name(f"{run.name}<img src=x onerror=pwned=1>'\"")
    run.rename(named)
    return named


def check(browser: Browser, page: Path, scripts: int) -> str:
    state = browser.evaluate(STATE)
    assert browser.complaints() == [], "the policy had to stop something that should not have been markup"
    assert browser.requests() == [page.as_uri()]
    assert state["pwned"] == "undefined"
    assert (state["scripts"], state["styles"], state["frames"]) == (scripts, 1, 0)
    assert state["shown"] == "block"
    assert state["font"] == "26px", "its own style sheet passed the policy"
    return str(state["text"])


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_run(browser: Browser, tmp_path: Path, status: str) -> None:
    run = poison(write_run(tmp_path, status=status, reason="why" if status == "failed" else None))
    page = write_report(run)
    browser.open(page, 1280)
    browser.screenshot(SCREENSHOTS / f"report-poisoned-{status}.png")
    text = check(browser, page, scripts=0)
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    text = check(browser, page, scripts=0)
    assert all(each in text for each in PAYLOADS if each != PAYLOADS[-1])


def test_a_comparison(browser: Browser, tmp_path: Path) -> None:
    for method in ("sft", "kd"):
        for seed in (0, 1):
            changes = {"x.y": f"{method}{PAYLOADS[2]}"}
            scores = {"nll": 0.5 + seed / 9, "accuracy": 0.3 + seed / 9}
            poison(write_job(tmp_path, method, seed, scores, changes=changes, hostile=True))
    poison(write_job(tmp_path, "kd", 9, {"nll": 1.0}, status="failed", reason="why"))
    page = write_comparison(compare([tmp_path]), tmp_path)
    browser.open(page, 1280)
    browser.screenshot(SCREENSHOTS / "comparison-poisoned.png")
    text = check(browser, page, scripts=1)
    browser.evaluate("document.querySelectorAll('button').forEach(button => button.click())")
    text = check(browser, page, scripts=1)
    assert PAYLOADS[1] in text
    assert PAYLOADS[2] in text


def test_the_payloads_work_where_nothing_is_escaped(browser: Browser, tmp_path: Path) -> None:
    """Or the tests above could not fail."""
    for i, text in enumerate((PAYLOADS[0], PAYLOADS[3])):
        page = tmp_path / f"{i}.html"
        page.write_text(f"<!doctype html><body>{text}<p>x", encoding="utf-8")
        browser.open(page, 800)
        assert browser.evaluate("typeof pwned") == "number"


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_the_policy_stops_markup_that_slipped_in(browser: Browser, tmp_path: Path, kind: str) -> None:
    """Put into the page by hand: no script, style, frame, picture, form of it does anything."""
    if kind == "run":
        page = write_report(write_run(tmp_path))
    else:
        for method in ("sft", "kd"):
            write_job(tmp_path, method, 0, {"nll": 0.5})
        page = write_comparison(compare([tmp_path]), tmp_path)
    slipped = (
        "<script>pwned=1</script><style>h1{font-size:99px!important}</style><b style='font-size:99px'>b</b>"
        "<img src='http://192.0.2.1/x' onerror='pwned=1'><iframe src='http://192.0.2.1/'></iframe>"
        "<svg onload='pwned=1'></svg><link rel=stylesheet href='http://192.0.2.1/x.css'>"
    )
    html = page.read_text(encoding="utf-8")
    assert html.count("<main>") == 1
    page.write_text(html.replace("<main>", f"<main>{slipped}"), encoding="utf-8")
    browser.open(page, 1280)
    assert browser.evaluate("typeof pwned") == "undefined"
    assert browser.evaluate("getComputedStyle(document.querySelector('h1')).fontSize") == "26px"
    assert browser.evaluate("getComputedStyle(document.querySelector('main > b')).fontSize") == "16px"
    assert len(browser.complaints()) >= 5, "each was stopped, and the browser said so"
    assert not [url for url in browser.requests() if not _blocked(browser, url) and url != page.as_uri()]


def _blocked(browser: Browser, url: str) -> bool:
    """Whether the browser told of a request that its policy then stopped."""
    failed = [e["params"] for e in browser.events if e["method"] == "Network.loadingFailed"]
    ids = {each["requestId"] for each in failed if each.get("blockedReason") == "csp"}
    sent = [e["params"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    return any(each["requestId"] in ids for each in sent if each["request"]["url"] == url)
