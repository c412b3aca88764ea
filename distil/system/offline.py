"""``run.allow_network=false``, proven: while a run may not use the network, this process refuses to.

An audit hook (PEP 578) sees every connection and every look-up of a name that Python code makes, whichever
library makes it, and cannot be taken off. Sockets that native code opens by itself it does not see; of those
that a run loads, NCCL and gloo talk to the processes of the run alone. Standard library only.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import cache
from typing import Any

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
    "NO_PROXY": "*",  # a proxy may lie on this machine, and lead out of it
    "no_proxy": "*",
}
"""What keeps libraries, and processes that they start, from trying."""
TO_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")
TO_NAME = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
TO_NUMBER = "socket.getnameinfo"
COPIES: dict[str, dict[str, tuple[str, ...]]] = {
    "huggingface_hub.constants": {"HF_HUB_OFFLINE": ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")},
    "datasets.config": {
        "HF_HUB_OFFLINE": ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
        "HF_DATASETS_OFFLINE": ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    },
    "evaluate.config": {"HF_EVALUATE_OFFLINE": ("HF_EVALUATE_OFFLINE",)},
}
"""Constants of modules that read the environment once, and the variables, of which the first one wins."""

_closed = 0
"""How many runs of this process want no network now."""


class Refused(ConnectionRefusedError):
    """A connection that was not made."""


@contextmanager
def network(allowed: bool) -> Iterator[None]:
    """Refuse connections inside, but to this machine itself, unless they are ``allowed``."""
    global _closed
    if allowed:
        yield
        return
    _watch()
    wanted = OFFLINE | ({} if os.environ.get("WANDB_MODE") == "disabled" else {"WANDB_MODE": "offline"})
    present = COPIES.keys() & sys.modules.keys()
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    _closed += 1
    try:
        yield
    finally:
        _closed -= 1
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again(COPIES.keys() - present)


def _read_again(modules: Set[str]) -> None:
    """Let ``modules``, imported while the network was closed, say what the environment says now."""
    for name in modules & sys.modules.keys():
        for constant, variables in COPIES[name].items():
            said = next((value for each in variables if (value := os.environ.get(each))), "")
            setattr(sys.modules[name], constant, said.upper() in ("1", "ON", "YES", "TRUE"))


@cache
def _watch() -> None:
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if not _closed or not event.startswith("socket."):
        return
    if event in TO_ADDRESS and not local_address(args[1]):
        raise Refused(f"run.allow_network=false: no connection to {args[1]!r}")
    if event in TO_NAME and not local_host(args[0]):
        raise Refused(f"run.allow_network=false: {args[0]!r} is not looked up")
    if event == TO_NUMBER and not local_address(args[0]):
        raise Refused(f"run.allow_network=false: {args[0]!r} is not looked up")


def local_address(address: object) -> bool:
    """Whether a socket's address is on this machine: a path, none (an open connection), or the loopback's."""
    if address is None or isinstance(address, (str, bytes)):
        return True
    return isinstance(address, tuple) and bool(address) and local_host(address[0])


def local_host(host: object) -> bool:
    """Whether a name or number means this machine itself, without anybody being asked."""
    if host is None:
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if text.rstrip(".").lower() in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False
