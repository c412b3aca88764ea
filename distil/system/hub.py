"""Whether the Hugging Face hub can be asked, known within seconds.

Libraries retry a hub that nobody reaches for most of a minute; one probe, made once, tells before they start.
"""

from __future__ import annotations

import os
import ssl
import threading
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

PROBE_SECONDS = 3.0
UNTRUSTED = 495
"""Status of a hub that answered, with a certificate that its own library alone may know."""
_TRUE = {"1", "true", "yes", "on"}


def offline_asked() -> str | None:
    """The environment variable that asks to stay off the network, if one does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").lower() in _TRUE), None)


def endpoint() -> str:
    """The hub's address, without a closing slash."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_cache() -> Path:
    """Where ``huggingface_hub`` keeps what it has fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def in_cache(kind: str, name: str) -> bool:
    """Whether something of ``owner/name`` is in the local cache; ``kind`` is ``models`` or ``datasets``."""
    folder = hub_cache() / f"{kind}--{name.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.iterdir())


def token() -> str | None:
    """The token that ``HF_TOKEN`` holds or ``hf auth login`` left, if there is one; a worn one is renewed."""
    from huggingface_hub import get_token

    return get_token()


def patience() -> float:
    """Seconds in which the hub must answer: ``HF_HUB_ETAG_TIMEOUT``, else ``PROBE_SECONDS``."""
    try:
        return float(os.environ["HF_HUB_ETAG_TIMEOUT"])
    except (KeyError, ValueError):
        return PROBE_SECONDS


@lru_cache(maxsize=64)
def ask(path: str) -> int | None:
    """HTTP status of ``path`` (``api/datasets/owner/name``) on the hub; None: no answer in ``patience()``.

    Runs in a thread of its own, since a name server that is silent is not bound by a socket's timeout.
    """
    answer: list[int] = []
    thread = threading.Thread(target=_ask, args=(f"{endpoint()}/{path}", token(), answer), daemon=True)
    thread.start()
    thread.join(patience())
    return answer[0] if answer else None


class _Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Go nowhere else."""


def _ask(url: str, secret: str | None, answer: list[int]) -> None:
    headers = {"User-Agent": "distil-runner"}
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    try:
        request = urllib.request.Request(url, headers=headers, method="HEAD")
        with urllib.request.build_opener(_Stays).open(request, timeout=patience()) as response:
            answer.append(response.status)
    except urllib.error.HTTPError as error:
        # What is kept elsewhere is there. The way is not followed: urllib would show the token there.
        answer.append(200 if 300 <= error.code < 400 else error.code)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            answer.append(UNTRUSTED)
    except (OSError, ValueError):
        pass
