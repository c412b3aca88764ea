"""No network means none: whatever library asks, and however it does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from distil.config.schema import TrackerConfig
from distil.system.offline import OFFLINE, Refused, local_address, local_host, network
from distil.tracking import check_tracker
from distil.types import InputError

FAR = ("192.0.2.1", 9)
"""An address that is nobody's (RFC 5737)."""


def connect_by_c() -> None:
    import _socket

    with_timeout = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with_timeout.settimeout(0.2)
    with_timeout.connect(FAR)


def send_a_packet() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", FAR)


def over_ipv6() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", ("2001:db8::1", 9))


def by_requests() -> None:
    import requests

    requests.get("http://192.0.2.1/", timeout=0.2)


def by_httpx() -> None:
    import httpx

    httpx.get("http://192.0.2.1/", timeout=0.2)


WAYS: list[Callable[[], object]] = [
    lambda: socket.create_connection(FAR, timeout=0.2),
    connect_by_c,
    send_a_packet,
    over_ipv6,
    lambda: socket.getaddrinfo("no-such-host.invalid", 80),
    lambda: socket.gethostbyname("no-such-host.invalid"),
    lambda: socket.getnameinfo(FAR, 0),
    lambda: urllib.request.urlopen("http://192.0.2.1/", timeout=0.2),
    by_requests,
    by_httpx,
]


def causes(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None and error not in found:
        found.append(error)
        reason = getattr(error, "reason", None)
        args = [each for each in error.args if isinstance(each, BaseException)]
        error = (
            error.__cause__ or error.__context__ or (reason if isinstance(reason, BaseException) else None)
        )
        error = error or next(iter(args), None)
    return found


@pytest.mark.parametrize("way", WAYS, ids=range(len(WAYS)))
def test_every_way_out_is_closed(way: Callable[[], object]) -> None:
    with network(False), pytest.raises(Exception) as caught:
        way()
    assert any(isinstance(each, Refused) for each in causes(caught.value)), caught.value
    assert "run.allow_network=false" in " ".join(map(str, causes(caught.value)))


def test_a_proxy_on_this_machine_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would lead out of it."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        port = proxy.getsockname()[1]
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        for ask in (lambda: urllib.request.urlopen("http://192.0.2.1/", timeout=0.2), by_requests, by_httpx):
            with network(False), pytest.raises(Exception):  # noqa: B017
                ask()
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_this_machine_can_be_talked_to(tmp_path: Path) -> None:
    with network(False):
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(("localhost", server.getsockname()[1]), timeout=1).close()
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(str(tmp_path / "socket"))
            server.listen()
            client.connect(str(tmp_path / "socket"))
        one, other = socket.socketpair()
        one.sendmsg([b"x"])
        assert other.recv(1) == b"x"
        one.close()
        other.close()


def test_what_is_local() -> None:
    assert all(
        map(local_host, ("localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", b"::1", "", None))
    )
    far = ("localhost.example.org", "0.0.0.0.example", "192.168.0.1", "10.0.0.1", "0.0.0.0", "2130706433")
    assert not any(map(local_host, (*far, "::ffff:192.0.2.1", "a" * 300)))
    assert all(map(local_address, ("/run/some.socket", b"\0abstract", ("127.0.0.1", 80), ("::1", 80, 0, 0))))
    assert not any(map(local_address, (("192.0.2.1", 80), ("fe80::1", 80, 0, 2), (), 7)))


def test_it_ends_with_the_run_and_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    before = dict(os.environ)
    with network(False):
        assert {name: os.environ[name] for name in OFFLINE} == OFFLINE
        assert os.environ["WANDB_MODE"] == "offline"
        with network(False):
            pass
        with network(True), pytest.raises(Refused):
            socket.getaddrinfo("no-such-host.invalid", 80)
    assert dict(os.environ) == before
    with pytest.raises(OSError) as caught:
        socket.getaddrinfo("no-such-host.invalid", 80)
    assert not isinstance(caught.value, Refused)


def test_libraries_imported_inside_are_not_offline_for_good() -> None:
    """In a process of its own: they read the environment once."""
    code = (
        "from distil.system.offline import network\n"
        "with network(False):\n"
        "    with network(False):\n"
        "        import huggingface_hub.constants as hub, datasets.config as sets\n"
        "    print(hub.is_offline_mode(), sets.HF_HUB_OFFLINE)\n"
        "print(hub.is_offline_mode(), sets.HF_HUB_OFFLINE, sets.HF_DATASETS_OFFLINE)\n"
    )
    wanted = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    for given, after in (({}, "False"), ({"TRANSFORMERS_OFFLINE": "1"}, "True")):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=wanted | given
        )
        assert done.stdout.split() == ["True"] * 2 + [after] * 3


def test_processes_that_are_started_inside_are_told(tmp_path: Path) -> None:
    with network(False):
        code = "import os; print(os.environ['HF_HUB_OFFLINE'], os.environ['WANDB_MODE'])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "offline"]


@pytest.mark.parametrize("mode", ["online", "shared"])
def test_a_tracker_that_must_be_online_is_refused(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(InputError, match=rf"WANDB_MODE={mode} and run\.allow_network=false"):
        check_tracker(TrackerConfig(name="wandb"), allow_network=False)
    check_tracker(TrackerConfig(name="wandb"), allow_network=True)
    check_tracker(TrackerConfig(name="tensorboard"), allow_network=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_tracker(TrackerConfig(name="wandb"), allow_network=False)
