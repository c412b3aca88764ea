"""Texts of data reach terminals, logs and cards as text: they steer and close nothing, and tell no secret."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil import cli
from distil.cards.brief import base_card, merged_card, run_card
from distil.cards.text import code
from distil.run_log import log_file
from distil.system.printable import one_line, printable

STEERS = "\x1b[2J\x1b]8;;http://192.0.2.1\x07link\x1b]8;;\x07\x9b31m\r\x00\x7f\u202e\u2066\u2069\u202c\u200f\u2028\u2029"
SECRET = "correct-horse-battery-staple"


@given(st.text(st.characters() | st.sampled_from(STEERS + "\ud800")))
def test_no_text_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
        shown.replace("\n", ""),
    )
    assert "\r" not in shown
    shown.encode("utf-8")
    if text.isascii() and text.isprintable():
        assert shown == text


def test_logs_are_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    with log_file(tmp_path / "run.log"):
        logging.getLogger("distil").warning("row 3 says %s and %s", STEERS, SECRET)
        try:
            raise ValueError(f"{STEERS}{SECRET}")
        except ValueError:
            logging.getLogger("distil").exception("failed")
    for text in (capsys.readouterr().err, (tmp_path / "run.log").read_text(encoding="utf-8")):
        assert "ValueError" in text
        assert "link" in text
        assert SECRET not in text
        assert text == printable(text)


def test_what_ends_a_command_is_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's mistake in one line, ours with all of its traceback: neither steers, neither tells."""
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    assert cli.main(["report", f"{STEERS}{SECRET}"]) == 2

    def broken(*_: object) -> int:
        raise ZeroDivisionError(f"{STEERS}{SECRET}")

    monkeypatch.setattr(cli, "run", broken)
    assert cli.main(["run", "x"]) == 1
    said = capsys.readouterr().err
    assert "error: " in said
    assert "Traceback" in said
    assert "ZeroDivisionError" in said
    assert SECRET not in said
    assert said == printable(said)


@pytest.mark.parametrize("fence", ["```", "~~~", "`````"])
def test_nothing_closes_a_fence(fence: str) -> None:
    hostile = f"python run.py x='\n{fence}\n<script>alert(1)</script>\n{fence}'"
    base = {"peft": "lora", "model": {"path": "a/b"}, "kept_layers": None}
    cards = [
        run_card("t", hostile, base),
        base_card("b", None, ("lora", "x"), hostile),
        merged_card("t", "b", "lora", hostile),
        code(hostile),
    ]
    for card in cards:
        opening = next(m[0] for m in re.finditer(r"^`{3,}", card, re.MULTILINE))
        start = card.index(opening) + len(opening)
        inside = card[start : card.index(f"\n{opening}\n" if card != cards[3] else f"\n{opening}", start)]
        assert inside.strip("\n") == hostile


def test_titles_are_no_markup() -> None:
    hostile = "kd student of <img src=x onerror=alert(1)>\n# [x](http://192.0.2.1)"
    base = {"peft": "lora", "model": {"path": hostile}, "kept_layers": None}
    for card in (
        run_card(hostile, "c", base),
        base_card(hostile, None, ("lora", "x"), "c"),
        merged_card(hostile, hostile, "lora", "c"),
    ):
        text = card.split("---", 2)[2]
        assert "<img" not in text.replace("\\<img", "")
        assert "\n# [x]" not in text
        assert "](http" not in text.replace("\\]", "")


def test_one_line() -> None:
    assert one_line("a\n b\t c") == "a b c"
    assert one_line(ValueError("no\nsuch row")) == "no such row"
    assert one_line("x" * 301, 240) == "x" * 239 + "…"
    assert one_line("x" * 200 + " " * 5000 + "y" * 5000) == f"{'x' * 200} {'y' * 98}…"
