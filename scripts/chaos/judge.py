"""``ckpt-chaos`` (PyPI) knows nothing of us: it kills, tears, stops and cuts a run, and judges what is left.

It starts a process for each run. Ours asks this one for a fork, and in that the judge's hook is armed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.chaos.runs import ended, forked

MODES = "before,torn,term,unsynced"
RUN = ["method=gkd", "trainer.max_steps=4", "trainer.save_steps=2", "trainer.save_total_limit=99"]
"""It compares each checkpoint with that of the run in peace: all are kept."""


def judge(root: Path, base: list[str], count: int) -> int:
    """Have ``count`` points tried, and print what it says. Its exit code: 0 where it found nothing."""
    try:
        import ckpt_chaos  # noqa: F401
    except ImportError:
        raise SystemExit("pip install --no-deps ckpt-chaos==0.1.8") from None
    overrides = [*base, *RUN]
    assert ended(forked(root / "named", overrides)) == 0
    (run,) = (root / "named" / "outputs" / "default").iterdir()
    server = root / "server"
    client = [sys.executable, "-S", "-E", str(Path(__file__).with_name("client.py")), str(server), "{out}"]
    command = [
        *(sys.executable, "-m", "ckpt_chaos", "run", "--modes", MODES, "--max-points", str(count)),
        *("--grace", "60", "--timeout", "300", "--work", str(root / "judge")),
        *("--checkpoint-glob", "{out}/default/*/checkpoints/checkpoint-*"),
        *("--step-regex", r"(?:Going on from checkpoint-|Done at its last step, )(\d+)"),
        *("--result-file", f"{{out}}/default/{run.name}/student/model.safetensors"),
        *("--fail-on", "HARD_FAIL,SILENT_DIVERGENCE,LOST_WORK,CONTROL_FAIL", "--", *client),
    ]
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(server))
        line.listen()
        line.settimeout(0.1)
        process = subprocess.Popen(command)
        while process.poll() is None:
            try:
                asked, _ = line.accept()
            except TimeoutError:
                continue
            with asked, asked.makefile() as words:
                environment, output, log = json.loads(words.readline())
                child = forked(root / "forks", overrides, lambda: _arm(environment), output=output, log=log)  # noqa: B023
                asked.sendall(str(ended(child, timeout=280)).encode())
    return process.returncode


def _arm(environment: Mapping[str, str]) -> None:
    """What its ``sitecustomize`` does in a process of its own."""
    os.environ.update({name: value for name, value in environment.items() if name.startswith("CKPT_CHAOS")})
    from ckpt_chaos.targets.common import arm_from_env

    arm_from_env(0)
