"""A network that is cut while a hub's files come costs a run its time, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command
from tests.end_to_end.fake_hub import FakeHub

NAME = "alice/small"
CUTS = [
    ("config.json", 0.5),
    ("generation_config.json", 0.5),  # a model need not have one: transformers would go on without it
    ("tokenizer.json", 1.0),
    ("model.safetensors", 0.5),
]
"""In the middle of a file, and between two."""


@pytest.fixture
def hub(small_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """It has the teacher of the small pair; the machine has nothing of it."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    hub = FakeHub()
    files = (small_pair / "teacher").iterdir()
    hub.repositories[NAME] = {file.name: file.read_bytes() for file in files}
    hub.private[NAME] = False
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    yield hub
    hub.close()


def product(folder: Path) -> dict[str, bytes]:
    (run,) = (path.parent for path in folder.glob("outputs/*/*/status.json"))
    assert json.loads((run / "status.json").read_text())["status"] == "done"
    files = [run / "results.json", run / "samples.jsonl", *(run / "student").iterdir()]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_network_that_is_cut_while_a_model_comes(
    hub: FakeHub,
    small_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model, what happened and the way out are told; once the hub is back, the same command ends as a run
    that nothing cut."""
    arguments = [*small_arguments[1:], f"model.teacher.path={NAME}", "trainer.max_steps=3"]
    arguments.append("output_dir=outputs")
    whole = tmp_path / "whole"
    whole.mkdir()
    ended = run_command(*arguments, cwd=whole)
    assert ended.returncode == 0, ended.stderr
    for number, cut in enumerate(CUTS):
        monkeypatch.setenv("HF_HOME", str(tmp_path / f"home-{number}"))
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        hub.cut_at = cut
        ended = run_command(*arguments, cwd=folder)
        told = " ".join(ended.stderr.split())
        assert ended.returncode == 2, (cut, told)
        assert "Traceback" not in told
        assert f"error: model.teacher.path={NAME}" in told
        assert "the same command goes on" in told
        assert not list(folder.rglob("status.json")), "a run that never began leaves nothing"
        hub.mend()
        ended = run_command(*arguments, cwd=folder)
        assert ended.returncode == 0, (cut, ended.stderr)
        assert product(folder) == product(whole), cut
