"""Secrets stay out of everything that is written or sent: config, command line, trackers, identity."""

from __future__ import annotations

import re
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
_SECRET_VALUE = re.compile(
    r"\b(?:hf|sk|ghp|gho|github_pat|glpat|xox[abp])[_-][A-Za-z0-9_-]{20,}"  # tokens that say what they are
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password@ in a URL
)


def is_secret(key: str) -> bool:
    """Whether a value under ``key`` (dotted or not) must not be written down."""
    return bool(_SECRET_KEY.search(key)) and not _TOKENIZER_KEY.search(key)


def holds_secret(text: str) -> bool:
    """Whether ``text`` holds something that looks like a token, or a password in a URL."""
    return bool(_SECRET_VALUE.search(text))


def redact(value: Any, key: str = "") -> Any:
    """A copy of ``value`` (nested dicts and lists) with secrets replaced by ``***``; None stays None."""
    if isinstance(value, dict):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, key) for item in value]
    if value is None or value == "":
        return value
    if is_secret(key):
        return HIDDEN
    return _SECRET_VALUE.sub(HIDDEN, value) if isinstance(value, str) else value
