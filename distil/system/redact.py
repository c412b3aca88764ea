"""Secrets stay out of everything that is written or sent: config, command line, trackers, logs, identity."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"(?:^|[._-])(?:secret|password|passwd|api_?key|access_?key|private_?key|credentials?|authorization)(?:$|[._-])"
    r"|(?:^|[._-])(?:auth_|hub_|hf_|access_|bearer_|api_)?token$",
    re.IGNORECASE,
)
# bos_token, pad_token …: words of a tokenizer, not secrets.
_TOKENIZER_KEY = re.compile(
    r"(?:^|[._-])(?:bos|eos|pad|unk|sep|cls|mask|image|start|end|special)_token$", re.IGNORECASE
)
_IN_QUERIES = (
    "token", "access_token", "auth_token", "api_key", "apikey", "key", "secret", "password", "sig",
    "signature", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature",
)  # fmt: skip
"""Parameters of a URL that open what it leads to."""
_SECRET_VALUE = re.compile(
    r"\b(?:hf|sk|ghp|gho|github_pat|glpat|xox[abp]|wandb_v1)[_-][A-Za-z0-9_-]{20,}"  # they say what they are
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password@ in a URL
    r"|(?<=://)[A-Za-z0-9_-]{20,}(?=@)"  # a token in the place of the user
    rf"|(?i:{'|'.join(f'(?<=[?&]{name}=)' for name in _IN_QUERIES)})[^&#\s'\"]+"
)

SHORTEST = 12
"""Characters of the shortest value of an environment variable that is looked for: shorter ones are words."""


def is_secret(key: str) -> bool:
    """Whether a value under ``key`` (dotted or not) must not be written down."""
    return bool(_SECRET_KEY.search(key)) and not _TOKENIZER_KEY.search(key)


def holds_secret(text: str) -> bool:
    """Whether ``text`` holds a secret of the environment, what looks like a token, or a password in a URL."""
    return bool(_SECRET_VALUE.search(text)) or any(secret in text for secret in _of_environment())


def redact(value: Any, key: str = "") -> Any:
    """A copy of ``value`` (nested dicts and lists) with secrets replaced by ``***``; None stays None.

    Secrets are what lies under a key that says so, what looks like one, and wherever they stand the values of
    environment variables whose names say so.
    """
    return _redact(value, key, _of_environment())


def _redact(value: Any, key: str, known: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {name: _redact(item, str(name), known) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact(item, key, known) for item in value]
    if value is None or value == "":
        return value
    if is_secret(key):
        return HIDDEN
    if not isinstance(value, str):
        return value
    for secret in known:
        value = value.replace(secret, HIDDEN)
    return _SECRET_VALUE.sub(HIDDEN, value)


def _of_environment() -> list[str]:
    """Values of the environment variables that are secrets by their names; longer ones may hold shorter ones.

    The path of a folder or file that is there is a place (of credentials), and no secret.
    """
    found = {value for name, value in os.environ.items() if len(value) >= SHORTEST and is_secret(name)}
    secrets = [value for value in found if not os.path.exists(value)]  # noqa: PTH110 (Path's raises for a long one)
    return sorted(secrets, key=len, reverse=True)
