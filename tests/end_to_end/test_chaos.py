"""The harness behind docs/reliability.md: it sees what is lost, and of runs nothing is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scripts.chaos.__main__ as chaos
from scripts.chaos.scarce import STAGES
from scripts.chaos.soak import _differs
from scripts.chaos.trials import Trial
from tests.end_to_end.conftest import ROOT, environment

WRITES = """
import os, sys
from pathlib import Path
from scripts.chaos.hook import Boundaries

root = Path(sys.argv[1])
(root / "replaced").write_text("old")
Boundaries(root, int(sys.argv[2]), power=True, names=root.parent / "names").install()
(root / "loose").write_text("x" * 100)
with open(root / "safe", "w") as file:
    file.write("y" * 100)
    file.flush()
    os.fsync(file.fileno())
with open(root / "safe", "a") as file:
    file.write("z" * 100)
os.rename(root / "safe", root / "replaced")
if sys.argv[3:] == ["sync"]:
    folder = os.open(root, os.O_RDONLY)
    os.fsync(folder)
(root / "last").mkdir()
print("alive")
"""


def after_power_cut(folder: Path, *words: str) -> dict[str, str]:
    """What is left of the files, by name, when the power is cut before ``last`` is made."""
    folder.mkdir()
    command = [sys.executable, "-c", WRITES, str(folder), "6", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    names = (folder.parent / "names").read_text(encoding="utf-8").splitlines()
    assert names[-1].endswith("mkdir\tlast")
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_a_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    assert after_power_cut(tmp_path / "a") == {"loose": "", "safe": "y" * 100, "replaced": "old"}
    assert after_power_cut(tmp_path / "b", "sync") == {"loose": "", "replaced": "y" * 100}


def test_trials_are_kept_where_one_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(*_: object) -> Iterator[Trial]:
        yield Trial("first", "")
        raise RuntimeError("second")

    monkeypatch.setattr(chaos, "_tried", tried)
    monkeypatch.setattr(chaos, "import_everything", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr("sys.argv", ["chaos", "soak", "--json", str(tmp_path / "trials.json")])
    with pytest.raises(RuntimeError, match="second"):
        chaos.main()
    assert json.loads((tmp_path / "trials.json").read_text(encoding="utf-8")) == [
        {"what": "first", "lost": "", "kind": ""}
    ]


def test_a_sweep_that_left_no_comparison_has_failed(tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"
    assert _differs(file, b"1").startswith("failed: ")
    file.write_bytes(b"1")
    assert _differs(file, b"1") == ""
    assert _differs(file, b"2") == "differs: comparison.json"


def test_help_names_every_trial() -> None:
    assert all(f"scripts.chaos {what} " in (chaos.__doc__ or "") for what in chaos.WHAT)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("what", "count", "tried"),
    [
        ("boundaries", 12, 12),
        ("power", 12, 12),
        pytest.param(
            "full", 12, 12, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")
        ),
        ("failing", 12, 12),
        ("memory", 6, 6),
        ("kills", 12, 12),
        ("races", 3, 3),
        ("damages", 100, 100 + 9 * 4),
    ],
)
def test_a_sample_loses_nothing(what: str, count: int, tried: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.chaos", what, "--count", str(count), "--seed", "7"]
    report = tmp_path / "trials.json"
    done = subprocess.run(
        [*command, "--json", str(report)], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads(report.read_text(encoding="utf-8"))
    assert len(trials) == tried
    assert [trial for trial in trials if trial["lost"]] == []
    assert re.search(rf"{what}: {tried} tried( \(.+\))?, 0 failed hard, 0 diverged silently", done.stdout)
    if what in ("full", "failing"):
        assert {trial["kind"] for trial in trials} == set(STAGES)
    if what == "memory":
        few, forks = trials[::3], trials[2::3]
        assert {trial["kind"] for trial in few} == {"told"}
        assert {trial["what"].partition(" with ")[0] for trial in forks} == {"a fork"}
        assert {trial["kind"] for trial in forks} <= {"told", "enough"}, "libraries were there, and aborted"
