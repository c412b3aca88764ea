"""What leaves the machine: places shortened and secrets hidden, everything else as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from distil.system.sharing import places_of, scrubbed, shareable, shareable_command

TOKEN = "hf_" + "a1B2" * 9


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("/mnt/me/rows.jsonl", "/path/to/rows.jsonl"),
        ("/mnt/me/models/llama/", "/path/to/llama"),
        ("~/rows.jsonl", "~/rows.jsonl"),
        ("~/secret project/rows.jsonl", "/path/to/rows.jsonl"),
        ("file:///mnt/me/rows.jsonl", "/path/to/rows.jsonl"),
        (["/mnt/me/a", 3, None, True], ["/path/to/a", 3, None, True]),
        ({"token": "short", "eos_token": "</s>"}, {"token": "***", "eos_token": "</s>"}),
        ("org/model", "org/model"),
        ("outputs/kd", "outputs/kd"),
        ("https://host/some/set", "https://host/some/set"),
        ("[INST] {prompt} [/INST]", "[INST] {prompt} [/INST]"),
        ("/no/path: a line\nand another", "/no/path: a line\nand another"),
        (TOKEN, "***"),
    ],
)
def test_values(value: object, told: object) -> None:
    assert shareable(value) == told
    assert shareable(told) == told


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("python run.py method=kd", "python run.py method=kd"),
        ("distil run data.train_file=/mnt/me/a.jsonl", "distil run data.train_file=/path/to/a.jsonl"),
        ("distil run 'run.plugins=[/x/a,/x/b]'", "distil run 'run.plugins=[/path/to/a,/path/to/b]'"),
        ("distil run 'data.path=/my data/rows x.csv'", "distil run 'data.path=/path/to/rows x.csv'"),
        ("distil run data.prompt_template='[INST] {q} [/INST]'", None),
        ("distil run 'p=\nQ: {q}\nA: '\npython run.py", "distil run 'p=\nQ: {q}\nA: '\npython run.py"),
        (f"distil run key={TOKEN}", "distil run key=***"),
        ("distil run hub_token=short", "distil run hub_token=***"),
        ("distil merge /mnt/me/run\npython run.py", "distil merge /path/to/run\npython run.py"),
        ("python run.py 'unclosed", "python run.py ''\"'\"'unclosed'"),
    ],
)
def test_commands(command: str, told: str | None) -> None:
    assert shareable_command(command) == (told or "distil run 'data.prompt_template=[INST] {q} [/INST]'")


def test_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole names only, and the longer of two places before the one that it lies in."""
    monkeypatch.setenv("HOME", "/mnt/me")
    places = places_of({"a": ["/srv/x", {"b": "/srv/x/y"}], "c": "https://a/b"}, Path("/var/run1"))
    assert set(places) == {"/mnt/me", "/var/run1", "/srv/x/y", "/srv/x"}
    assert places[-1] == "/srv/x"
    text = f"/srv/x/y/z /srv/x, /srv/xx /mnt/me/k {TOKEN} /usr/bin"
    assert scrubbed(text, places) == "/path/to/y/z /path/to/x, /srv/xx /path/to/me/k *** /usr/bin"
    monkeypatch.setenv("HOME", "/")
    assert "/" not in places_of({})
