"""A few hundred inputs of each kind, the same every time; ``python -m scripts.fuzz`` has no end of them."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from distil.engine import checkpoints
from distil.engine.checkpoints import newest_valid, published, verify
from distil.teacher_cache.manifest import Manifest
from distil.teacher_cache.store import write_shard
from scripts.fuzz.__main__ import fuzz
from scripts.fuzz.guard import Guard
from scripts.fuzz.mutate import read
from scripts.fuzz.seeds import data_files
from scripts.fuzz.targets import (
    Target,
    chat_tokenizer,
    seal_caches,
    seal_checkpoints,
    use_cache,
    use_config,
    use_data,
    use_run,
    use_tokenizer,
)
from tests.unit.report.made_up_run import write_run


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    before, tracing = {s: signal.getsignal(s) for s in (signal.SIGALRM, signal.SIGPROF)}, sys.gettrace()
    yield Guard(coverage=False)
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.settrace(tracing)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "in"))
    return tmp_path.resolve()


def a_cache(folder: Path) -> Target:
    cache = folder / "hidden-0123456789ab"
    cache.mkdir(parents=True)
    shard = write_shard(cache, "00000.safetensors", 0, [2, 1], {"hidden_NH": torch.zeros(3, 4)})
    about = {"key": {"format": {"name": "hidden"}, "teacher": {"dtype": "x"}}, "teacher": "t", "rows": 2}
    Manifest(about, (shard,), complete=True).write(cache)
    return Target([read(folder)], use_cache, 1, seal_caches)


def some_checkpoints(folder: Path) -> Target:
    for step in (1, 2):
        made = folder / "made" / f"checkpoint-{step}"
        made.mkdir(parents=True)
        (made / "trainer_state.json").write_text('{"global_step": 1, "best_model_checkpoint": null}')
        (made / "optimizer.pt").write_bytes(b"PK numbers")
        checkpoints.publish(made, folder / made.name)
    (folder / "made").rmdir()

    def use(where: Path) -> None:
        for each in published(where):
            verify(each)
        newest_valid(where)

    return Target([read(folder)], use, 1, seal_checkpoints)


def a_run(folder: Path) -> Target:
    return Target([read(write_run(folder))], use_run, 1)


def a_config(folder: Path) -> Target:
    return Target([{"config.yaml": (write_run(folder) / "config.yaml").read_bytes()}], use_config, 1)


KINDS = {
    "config": (a_config, 60),
    "data": (lambda folder: Target(data_files(), use_data, 1), 40),
    "run": (a_run, 12),
    "cache": (a_cache, 100),
    "checkpoint": (some_checkpoints, 100),
    "tokenizer": (lambda folder: Target([chat_tokenizer()], use_tokenizer, 1), 60),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_no_input_breaks_its_reader(
    name: str, guard: Guard, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, count = KINDS[name]
    assert fuzz(guard, name, make(root / "seeds"), count, Random(name), root) == 0, capsys.readouterr().out


def test_the_guard_sees_what_it_forbids(guard: Guard, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is found, and none is done."""
    monkeypatch.setattr("scripts.fuzz.guard.SECONDS", 0.5)

    def other_error(folder: Path) -> None:
        raise KeyError("a")

    def outside(folder: Path) -> None:
        (root / "beside").write_text("a")

    def swallowed(folder: Path) -> None:
        try:
            outside(folder)
        except Exception:  # what readers do
            return

    def linked(folder: Path) -> None:
        (folder / "link").symlink_to(root)
        (folder / "link" / "beside").write_text("a")

    def renamed(folder: Path) -> None:
        (folder / "a").write_text("a")
        (folder / "a").rename(root / "beside")

    def process(folder: Path) -> None:
        import subprocess

        subprocess.run(["true"], check=True)

    def endless(folder: Path) -> None:
        while True:
            pass

    def pickled(folder: Path) -> None:
        import pickle

        pickle.loads(b"cposix\nsystem\n.")

    for use in (other_error, outside, swallowed, linked, renamed, process, pickled, endless):
        assert guard.run(use, root / "in")[0] is not None, use.__name__
        assert not (root / "beside").exists()
    assert guard.run(lambda folder: (folder / "a").unlink(), root / "in") == (None, 0)
