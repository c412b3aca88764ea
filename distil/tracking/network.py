"""Whether a server can be reached, known within seconds."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

NETWORK_SECONDS = 2.0
"""How long a server has to answer before a run is recorded offline."""


def reachable(url: str, seconds: float = NETWORK_SECONDS) -> bool:
    """Whether the server of ``url``, or the proxy on the way, accepts a connection within ``seconds``."""
    target = urlsplit(url)
    proxy = getproxies().get(target.scheme or "https")
    if proxy and not proxy_bypass(target.netloc.rpartition("@")[2]):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")  # as curl and W&B read it
    address = (target.hostname or "", target.port or (80 if target.scheme == "http" else 443))
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
            answered.set()
        except OSError:
            pass
        finally:
            finished.set()

    finished = threading.Event()
    # In a thread: the look-up of a name obeys no timeout of ours.
    threading.Thread(target=connect, daemon=True).start()
    finished.wait(seconds)
    return answered.is_set()
