"""The embedded job opens no connection at all: seen by Python's audit events and by the kernel's own log."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT

SMALL = (
    "trainer.max_steps=2",
    "eval.generation_rows=2",
    "eval.during_training_rows=2",
    "data.max_eval_rows=4",
)
BLOCKED = """
import os, sys
def refuse(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        where = args[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        where = args[0]
    else:
        return
    if isinstance(where, (str, bytes)) and event == "socket.connect" or where is None:
        return  # a path, or the other end of a pair
    if isinstance(where, tuple) and where[0] in ("127.0.0.1", "::1"):
        return
    with open(os.environ["SEEN"], "a") as file:
        file.write(f"{event} {where}\\n")
    raise OSError("this process has no network")
sys.addaudithook(refuse)
"""
"""What each Python process of the run starts with."""
STRACE = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-e", "signal=none", "-o")
LOCAL = re.compile(r'inet_addr\("127\.|"::1"')


def clean(folder: Path) -> dict[str, str]:
    """An environment in which nothing says that there is no network, and every cache is empty."""
    silent = ("HF_", "TRANSFORMERS_", "WANDB_", "DISTIL_", "NO_PROXY", "no_proxy")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(silent)}
    (folder / "blocked").mkdir(exist_ok=True)
    (folder / "blocked" / "sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
    home = str(folder / "home")
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(folder / "blocked"), str(ROOT)]),
        "SEEN": str(folder / "seen"),
        "HOME": home,
        "XDG_CACHE_HOME": home,
        "OMP_NUM_THREADS": "1",
    }


def connections(folder: Path, *command: str, variables: dict[str, str] | None = None) -> list[str]:
    """Every connection and look-up beyond this machine that ``command`` and its children try; they fail.

    Python's own are seen always; those of native code where strace may watch.
    """
    log = folder / "strace"
    watched = [*STRACE, str(log), *command] if _may_watch() else list(command)
    done = subprocess.run(
        watched,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=ROOT,
        env=clean(folder) | (variables or {}),
    )
    assert done.returncode == 0, done.stderr
    seen = (folder / "seen").read_text(encoding="utf-8").splitlines() if (folder / "seen").exists() else []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return seen + [line for line in lines if "AF_INET" in line and not LOCAL.search(line)]


def _may_watch() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-qq", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 9), timeout=.1)",
        "import socket; socket.getaddrinfo('no-such-host.invalid', 80)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    ],
)
def test_what_is_tried_is_seen(code: str, tmp_path: Path) -> None:
    """Or the tests below could not fail."""
    assert connections(tmp_path, sys.executable, "-c", f"try:\n {code}\nexcept OSError: pass")


@pytest.mark.skipif(not _may_watch(), reason="strace is not installed, or may not watch")
def test_native_code_is_seen(tmp_path: Path) -> None:
    """A process that no audit hook is in."""
    code = "exec 3<>/dev/udp/192.0.2.1/9; echo x >&3"
    assert connections(tmp_path, "bash", "-c", f"({code}) || true")


ROWS = """
import sys
from pathlib import Path
from distil.data.base import source_of
from distil.data.hf import HfConfig
from distil.data.jsonl import JsonlConfig
folder = Path(sys.argv[1])
for name in ("rows.parquet", "rows.jsonl", "rows.csv"):
    assert len(source_of(JsonlConfig(train_file=str(folder / name))).rows().train) == 30
for name in ("saved", "rows.parquet", "files"):
    assert len(source_of(HfConfig(path=str(folder / name))).rows().train) == 30
"""


def test_local_rows_are_counted_on_no_server(tmp_path: Path) -> None:
    """``datasets`` tells one of every load, also of files of one's own."""
    from datasets import Dataset

    rows = Dataset.from_list([{"prompt": f"a {i}", "response": "b"} for i in range(30)])
    (tmp_path / "given" / "files").mkdir(parents=True)
    rows.to_parquet(str(tmp_path / "given" / "rows.parquet"))
    rows.to_parquet(str(tmp_path / "given" / "files" / "train.parquet"))
    rows.to_json(str(tmp_path / "given" / "rows.jsonl"))
    rows.to_csv(str(tmp_path / "given" / "rows.csv"))
    rows.save_to_disk(str(tmp_path / "given" / "saved"))
    assert connections(tmp_path, sys.executable, "-c", ROWS, str(tmp_path / "given")) == []


@pytest.mark.parametrize(
    ("overrides", "variables"),
    [
        ([], {}),
        pytest.param(["tracker=tensorboard", "method=gkd"], {}, marks=pytest.mark.slow),
        pytest.param(["tracker=wandb", "peft=lora"], {}, marks=pytest.mark.slow),
        pytest.param(
            ["tracker=wandb", "peft=qlora", "run.allow_network=false"],
            {"WANDB_API_KEY": "0123456789" * 4},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["default", "tensorboard", "wandb-without-a-key", "refused"],
)
def test_the_embedded_job(overrides: list[str], variables: dict[str, str], tmp_path: Path) -> None:
    """With the default config nothing is asked and nothing told; a key alone opens nothing where the network
    is refused."""
    command = (sys.executable, "run.py", *SMALL, *overrides, f"output_dir={tmp_path / 'out'}")
    assert connections(tmp_path, *command, variables=variables) == []
    assert len(list((tmp_path / "out").glob("*/*/report.html"))) == 1


@pytest.mark.slow
def test_local_models_and_what_is_made_of_them(small_arguments: list[str], tmp_path: Path) -> None:
    """A run on folders and files, and every verb on it."""
    arguments = [*small_arguments, "peft=lora", "trainer.max_steps=2", f"output_dir={tmp_path / 'out'}"]
    assert connections(tmp_path, sys.executable, "run.py", *arguments) == []
    run = str(next((tmp_path / "out").glob("*/*/status.json")).parent)
    for verb in (
        ["report", run],
        ["compare", run],
        ["doctor", run],
        ["doctor"],
        ["generate", run, "--prompt", "the cat ?"],
        ["evaluate", run, "--rows", "2"],
        ["merge", run, "--output", str(tmp_path / "merged")],
        ["export", run, "--output", str(tmp_path / "exported")],
    ):
        assert connections(tmp_path, sys.executable, "-m", "distil", *verb) == [], verb
