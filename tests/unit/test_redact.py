"""Secrets are hidden wherever they stand; words that only look like them are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from distil.system.redact import HIDDEN, holds_secret, is_secret, redact

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123"


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "hub_token",
        "trainer.hub_token",
        "hf_token",
        "WANDB_API_KEY",
        "apikey",
        "db.password",
        "client_secret",
    ],
)
def test_secret_keys(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "max_new_tokens",
        "eos_token",
        "pad_token",
        "bos_token",
        "special_tokens",
        "tokenizer",
        "keep_layers",
        "num_keys",
    ],
)
def test_other_keys(key: str) -> None:
    assert not is_secret(key)


def test_nested_values_are_hidden_and_the_input_is_untouched() -> None:
    config = {
        "trainer": {"hub_token": "abc", "max_steps": 3},
        "list": [{"password": "x"}],
        "note": f"my {TOKEN}!",
    }
    shown = redact(config)
    assert shown == {
        "trainer": {"hub_token": HIDDEN, "max_steps": 3},
        "list": [{"password": HIDDEN}],
        "note": f"my {HIDDEN}!",
    }
    assert config["trainer"] == {"hub_token": "abc", "max_steps": 3}


def test_nothing_to_hide_stays_visible() -> None:
    assert redact({"hub_token": None, "password": ""}) == {"hub_token": None, "password": ""}


def test_credentials_in_a_url() -> None:
    assert redact("https://me:pass@host/x") == f"https://{HIDDEN}@host/x"
    assert redact("https://host:8000/x@y") == "https://host:8000/x@y"


def test_a_key_in_the_query_of_a_url() -> None:
    assert redact("https://h/x?a=1&token=abc&b=2#end") == f"https://h/x?a=1&token={HIDDEN}&b=2#end"
    assert redact("s3://b/x?X-Amz-Signature=0f0f") == f"s3://b/x?X-Amz-Signature={HIDDEN}"
    assert redact(f"https://{'a' * 24}@host/x") == f"https://{HIDDEN}@host/x"
    assert redact("https://h/x?page=2&sort=key") == "https://h/x?page=2&sort=key"
    assert redact("eos_token=</s>") == "eos_token=</s>"


def test_the_environments_secrets_are_hidden_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "correct-horse-battery")
    monkeypatch.setenv("WANDB_API_KEY", "correct-horse-battery-staple")
    monkeypatch.setenv("OTHER_TOKEN", "word")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    shown = redact(
        {"note": ["a correct-horse-battery b", "correct-horse-battery-staple"], "path": str(tmp_path)}
    )
    assert shown == {"note": [f"a {HIDDEN} b", HIDDEN], "path": str(tmp_path)}
    assert redact("a word") == "a word", "too short to be told from one"
    assert holds_secret("x/correct-horse-battery")
    assert not holds_secret(str(tmp_path))
