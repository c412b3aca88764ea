"""What is asked of a hub, and what is used without asking. Each in a process of its own: ``huggingface_hub``
reads the environment once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT
from tests.end_to_end.fake_hub import FakeHub

NAME = "alice/small"


def named(*names: str) -> dict[str, bytes]:
    """Files that differ: what is equal is fetched once."""
    return {name: name.encode() for name in names}


READ = named("config.json", "generation_config.json", "tokenizer.json")
WHOLE = named("model.safetensors")
INDEX = named("model.safetensors.index.json")
SHARDS = named("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
NEVER_READ = named(
    "original/params.json",
    "onnx/model.safetensors",
    "checkpoint-500/trainer_state.json",
    "model.fp16.safetensors",
)
FETCH = f"""
from distil.models.check import is_cached
from distil.models.fetch import fetch
from distil.models.sources import Source

source = Source("model.teacher.path", "{NAME}", None)
fetch(source, True, weights=True)
"""
LOAD = """
from huggingface_hub import hf_hub_download
from distil.models.load import from_source


def load(name, local_files_only, trust_remote_code):
    for file in ("config.json", "model-00001-of-00002.safetensors"):
        hf_hub_download(name, file, local_files_only=local_files_only)
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    hub.private[NAME] = False
    yield hub
    hub.close()


def ran(hub: FakeHub, cache: Path, script: str, **variables: str) -> tuple[str, list[str]]:
    """The last line that ``script`` ended with, an error's as a rule; and the files that the hub gave."""
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    kept |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_HUB_ETAG_TIMEOUT": "5"}
    del hub.asked[:]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=kept | variables, capture_output=True, text=True
    )
    (*_, last) = ["", *(done.stderr.splitlines() if done.returncode else [])]
    return last, sorted(
        path.partition("/resolve/")[2].partition("/")[2] for path in hub.asked if "/resolve/" in path
    )


def kept_by(patterns: list[str]) -> str:
    """Another program's download, which leaves its listing, too."""
    return f"""
from huggingface_hub import snapshot_download

snapshot_download("{NAME}", ignore_patterns={patterns})
"""


def test_what_nobody_reads_does_not_come(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[NAME] = READ | SHARDS | INDEX | NEVER_READ
    error, given = ran(hub, tmp_path, FETCH)
    assert error == ""
    assert given == sorted(READ | SHARDS | INDEX)
    assert ran(hub, tmp_path, FETCH) == ("", [])


@pytest.mark.parametrize(
    "left_out",
    [
        sorted(NEVER_READ),
        ["*/*", "model-*"],  # a whole file is there: its shards are not read
        ["*/*", "model.fp16*", "LICENSE.txt", "preprocessor_config.json"],
    ],
)
def test_a_cache_without_what_nobody_reads_is_used(hub: FakeHub, tmp_path: Path, left_out: list[str]) -> None:
    """With no hub, and none is asked where there is one."""
    more = named("LICENSE.txt", "preprocessor_config.json")
    hub.repositories[NAME] = READ | WHOLE | SHARDS | NEVER_READ | more
    ran(hub, tmp_path, kept_by(left_out))
    assert (ran(hub, tmp_path, FETCH), hub.asked) == (("", []), [])
    hub.close()
    assert ran(hub, tmp_path, FETCH) == ("", [])
    hub.mend()


def test_code_that_nobody_imports_may_be_missing(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[NAME] = READ | WHOLE | named("modeling_x.py", "finetune.py")
    ran(hub, tmp_path, kept_by(["finetune.py"]))
    trusts = FETCH.replace("None)", "None, trust_remote_code=True)")
    assert (ran(hub, tmp_path, trusts), hub.asked) == (("", []), [])


@pytest.mark.parametrize("left_out", [*sorted(READ)[1:], *SHARDS])
def test_a_cache_without_what_is_read_is_not(hub: FakeHub, tmp_path: Path, left_out: str) -> None:
    hub.repositories[NAME] = READ | SHARDS | INDEX
    ran(hub, tmp_path, kept_by([left_out]))
    hub.close()
    error, _ = ran(hub, tmp_path, FETCH)
    assert "the hub cannot be reached" in error
    hub.mend()
    assert ran(hub, tmp_path, FETCH) == ("", [left_out])


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_a_hub_that_gives_files_alone_is_left_to_the_loader(
    hub: FakeHub, tmp_path: Path, status: int
) -> None:
    hub.repositories[NAME] = READ | WHOLE
    hub.gives_files_alone = status
    assert ran(hub, tmp_path, FETCH) == ("", [])


def test_a_hub_that_is_lost_is_not(hub: FakeHub, tmp_path: Path) -> None:
    """Else the loader would go on without the file."""
    hub.repositories[NAME] = READ | WHOLE
    hub.cut_at = ("generation_config.json", 0.5)
    assert ran(hub, tmp_path, FETCH)[0] != ""
    hub.mend()
    hub.gives_files_alone = 500
    assert ran(hub, tmp_path, FETCH)[0] != "", "what is missing is known by the listing that came before"


@pytest.mark.parametrize(
    ("allowed", "variables", "said"),
    [
        (False, {}, "run.allow_network=false"),
        (True, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (True, {}, "the hub at {} was lost while its files came"),
    ],
)
def test_what_keeps_the_hub_out_is_told(
    hub: FakeHub, tmp_path: Path, allowed: bool, variables: dict[str, str], said: str
) -> None:
    """Of a cache that lacks a shard."""
    hub.repositories[NAME] = READ | SHARDS | INDEX
    ran(hub, tmp_path, kept_by(["model-00001*"]))
    hub.close()
    error, _ = ran(
        hub,
        tmp_path,
        f"{FETCH.replace('fetch(', '# ')}{LOAD}\nfrom_source(load, source, {allowed})",
        **variables,
    )
    assert f"model.teacher.path={NAME}" in error
    assert said.format(hub.endpoint) in error
    assert ("lost" in error) == (allowed and not variables)
    assert ("not wholly in the local cache" in error) != ("lost" in error)
    hub.mend()
