"""Secrets are hidden wherever they stand; words that only look like them are not."""

from __future__ import annotations

import pytest

from distil.redact import HIDDEN, is_secret, redact

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
