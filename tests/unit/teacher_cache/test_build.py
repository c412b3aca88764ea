"""A cache is built once, survives a kill, and every byte of it is checked."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distil.head import Dense
from distil.sparse import Sparse
from distil.system.files import read_json
from distil.teacher_cache import build
from distil.teacher_cache.answers import CachedTeacher, ensure_head
from distil.teacher_cache.build import Entry, TeacherForward, ensure
from distil.teacher_cache.formats.base import CacheFormat, Size
from distil.teacher_cache.formats.hidden import Hidden, HiddenConfig
from distil.teacher_cache.formats.sampled import Sampled, SampledConfig
from distil.teacher_cache.formats.topk import TopK, TopKConfig
from distil.teacher_cache.manifest import Manifest, whole
from distil.teacher_cache.store import Reader
from distil.types import InputError
from tests.training import EOS, VOCABULARY, random_rows, tiny_gpt2, tiny_llama

ROOT = Path(__file__).resolve().parents[3]
ROWS = random_rows(40)
KEPT: list[CacheFormat[Any]] = [Hidden(HiddenConfig()), TopK(TopKConfig(k=6)), Sampled(SampledConfig())]
each = pytest.mark.parametrize("kept", KEPT, ids=lambda kept: str(kept.config.name))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SHARD_TOKENS", 60)


class Counting(TeacherForward):
    """A real teacher that counts the rows it was asked about."""

    def __init__(self) -> None:
        super().__init__(tiny_llama(2, width=24, layers=3).eval(), EOS, None)
        self.rows = 0

    def __call__(self, rows: Sequence[Any]) -> Dense:
        self.rows += len(rows)
        return super().__call__(rows)


def entry(folder: Path, kept: CacheFormat[Any] = KEPT[0], rows: Sequence[Any] = ROWS) -> Entry:
    about = {"key": {}, "teacher": "tiny", "split": "training", "rows": len(rows)}
    return Entry(folder, kept, about, rows, Size(VOCABULARY, 24, 4), batch_size=3)


def made(folder: Path, kept: CacheFormat[Any] = KEPT[0]) -> tuple[Manifest, int]:
    """The complete manifest, and about how many rows the teacher was asked."""
    teacher = Counting()
    return ensure(entry(folder, kept), lambda: teacher, lambda _: None), teacher.rows


@each
def test_what_is_read_in_any_order_is_what_the_teacher_says(kept: CacheFormat[Any], tmp_path: Path) -> None:
    manifest, _ = made(tmp_path / "it", kept)
    assert len(manifest.shards) > 3
    teacher = Counting()
    cached = CachedTeacher(
        Reader(tmp_path / "it", manifest), kept, teacher.forward(*batch(0)).head, teacher.device
    )
    for numbers in ([5, 0, 39], [17], list(range(40))[::-1]):
        said = teacher([ROWS[i] for i in numbers])
        got = cached(numbers)
        if isinstance(got, Dense):
            torch.testing.assert_close(got.hidden_NH, said.hidden_NH, rtol=1e-5, atol=1e-6)
            continue
        of = [i for i in numbers for _ in ROWS[i]["labels"][len(ROWS[i]["prompt_ids"]) :]]
        wanted = kept.decode(kept.encode(said, of, VOCABULARY), None)
        assert isinstance(wanted, Sparse)
        T = 2.0
        torch.testing.assert_close(dense(got, T), dense(wanted, T), rtol=0.02, atol=0.03)


def batch(row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids_BT = torch.tensor([ROWS[row]["input_ids"]])
    return ids_BT, torch.ones_like(ids_BT), torch.ones_like(ids_BT, dtype=torch.bool)


def dense(signal: Sparse, temperature: float) -> torch.Tensor:
    """Probabilities by id, and the rest."""
    p_NO = signal.outcomes(temperature).exp()
    ids_NK = signal.ids_NK.long().clamp(min=0)
    full_NV = torch.zeros(len(ids_NK), VOCABULARY).scatter_add_(-1, ids_NK, p_NO[:, :-1])
    return torch.cat([full_NV, p_NO[:, -1:]], -1)


def test_the_second_reads_what_the_first_built(tmp_path: Path) -> None:
    first, asked = made(tmp_path / "it")
    assert asked == len(ROWS)
    second, asked = made(tmp_path / "it")
    assert asked == 0
    assert second == first
    assert first.tokens == sum(len(row["labels"]) - len(row["prompt_ids"]) for row in ROWS)
    assert first.size == sum(file.stat().st_size for file in (tmp_path / "it").glob("*.safetensors"))


KILLED = """
import os, signal, sys
from pathlib import Path
from distil.teacher_cache import build
from tests.unit.teacher_cache import test_build as t
build.SHARD_TOKENS, write = 60, build.write_shard
def twice(folder, name, *rest):
    shard = write(folder, name, *rest)
    if name.startswith("00002"):  # on the disk, and not in the manifest yet
        (folder / ".00003.safetensors.partial").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return shard
build.write_shard = twice
t.made(Path(sys.argv[1]))
"""


def child(code: str, *words: object) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
    )


def test_after_a_kill_only_what_is_not_in_the_manifest_is_asked_again(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    killed = child(KILLED, folder)
    assert killed.wait(timeout=120) == -signal.SIGKILL, killed.communicate()[1]
    left = Manifest.read(folder)
    assert left is not None
    assert not left.complete
    assert [shard.name for shard in left.shards] == ["00000.safetensors", "00001.safetensors"]
    assert whole(folder) is None
    before = [(folder / shard.name).stat().st_mtime_ns for shard in left.shards]
    manifest, asked = made(folder)
    assert asked == len(ROWS) - sum(shard.rows for shard in left.shards)
    assert [(folder / shard.name).stat().st_mtime_ns for shard in left.shards] == before
    assert {path.name for path in folder.iterdir()} == {s.name for s in manifest.shards} | {"manifest.json"}
    at_once, _ = made(tmp_path / "at once")
    assert [shard.sha256 for shard in manifest.shards] == [shard.sha256 for shard in at_once.shards]


def test_shards_of_another_size_are_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unfinished build of a version that cut otherwise: no row is lost or doubled."""
    folder = tmp_path / "it"
    manifest, _ = made(folder)
    Manifest(manifest.about, manifest.shards[:-1], complete=False).write(folder)
    monkeypatch.setattr(build, "SHARD_TOKENS", 90)
    again, _ = made(folder)
    assert again.tokens == manifest.tokens
    assert sum(shard.rows for shard in again.shards) == len(ROWS)
    assert len(again.shards) < len(manifest.shards)
    assert {path.name for path in folder.iterdir()} == {s.name for s in again.shards} | {"manifest.json"}


RACING = """
import sys
from pathlib import Path
from distil.teacher_cache import build
from tests.unit.teacher_cache import test_build as t
build.SHARD_TOKENS = 60
print("ready", flush=True)
sys.stdin.readline()
print(t.made(Path(sys.argv[1]))[1])
"""


def test_two_processes_that_want_it_at_once_ask_the_teacher_once(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", RACING, tmp_path / "it"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )
        for _ in range(2)
    ]
    for process in racing:
        assert process.stdout is not None
        assert "ready\n" in iter(process.stdout.readline, "")  # libraries print their own before
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    asked = [int(process.communicate(timeout=120)[0]) for process in racing]
    assert sorted(asked) == [0, len(ROWS)]
    assert whole(tmp_path / "it") is not None
    assert not list(tmp_path.glob(".*.lock"))


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped", "shorter", "gone"])
def test_damage_is_named_and_that_shard_alone_built_again(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest, _ = made(tmp_path / "it")
    hurt = manifest.shards[1]
    path = tmp_path / "it" / hurt.name
    if how == "flipped":
        flip(path)
    elif how == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        again, asked = made(tmp_path / "it")
    assert asked == hurt.rows
    assert str(path) in caplog.text
    assert again == manifest


def test_a_broken_manifest_is_named_and_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        manifest, _ = made(tmp_path / "it")
    assert not caplog.text
    path = tmp_path / "it" / "manifest.json"
    path.write_text("{", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert made(tmp_path / "it") == (manifest, len(ROWS))
    assert f"{path} cannot be read" in caplog.text


def test_the_size_is_told_before_the_teacher_is_asked_for(tmp_path: Path) -> None:
    said: list[str] = []

    def never() -> TeacherForward:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(entry(tmp_path / "it"), never, said.append)
    (line,) = said
    tokens = sum(len(row["labels"]) - len(row["prompt_ids"]) for row in ROWS)
    assert f"training rows, hidden: {tokens:,} tokens x 96 bytes = {tokens * 96 / 1000:.3g} kB" in line


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for 1000 bytes."""
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1000))


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("kept", "split", "way_out"),
    [
        (Hidden(HiddenConfig()), "training", "dtype=bfloat16, or teacher_cache=topk"),
        (Hidden(HiddenConfig(dtype="float16")), "training", "smaller format: teacher_cache=topk"),
        (
            TopK(TopKConfig(k=6)),
            "training",
            "smaller teacher_cache.k, or for method=kd teacher_cache=sampled",
        ),
        (Sampled(SampledConfig()), "training", "fewer teacher_cache.samples"),
        (Hidden(HiddenConfig()), "test", "eval.teacher=false"),
    ],
)
def test_without_room_it_is_refused_before_the_teacher_is_asked_for(
    kept: CacheFormat[Any], split: str, way_out: str, tmp_path: Path
) -> None:
    it = entry(tmp_path / "it", kept)
    it = replace(it, about={**it.about, "split": split})
    told = rf"{split} rows, {kept.config.name}: .* 1 kB are free .*teacher_cache\.folder=, or .*{way_out}\."
    with pytest.raises(InputError, match=told):
        ensure(it, Counting, lambda _: None)


@pytest.mark.usefixtures("full")
def test_without_room_for_the_head_its_size_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the teacher's head: .* kB, and 1 kB are free in .*folder=\."):
        ensure_head(tmp_path / "h", {}, lambda: tiny_gpt2(0), torch.device("cpu"), lambda _: None)
    assert not (tmp_path / "h" / "head.safetensors").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"teacher_cache\.folder=.*file"):
        ensure(entry(tmp_path / "file" / "it"), Counting, lambda _: None)


def test_a_row_that_is_not_there(tmp_path: Path) -> None:
    manifest, _ = made(tmp_path / "it")
    with pytest.raises(IndexError, match="row 40 of 40"):
        Reader(tmp_path / "it", manifest)([40])


def test_the_manifest_names_what_it_was_made_from(tmp_path: Path) -> None:
    made(tmp_path / "it")
    assert read_json(tmp_path / "it" / "manifest.json")["about"]["teacher"] == "tiny"


def test_the_head_is_kept_and_the_teacher_not_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = tiny_gpt2(0)
    folder, about = tmp_path / "head", {"split": None}
    device = torch.device("cpu")
    first = ensure_head(folder, about, lambda: teacher, device, lambda _: None)

    def never() -> torch.nn.Module:
        raise AssertionError("asked again")

    second = ensure_head(folder, about, never, device, lambda _: None)
    for head in (first, second):
        assert head.weight_VH is not None
        assert torch.equal(head.weight_VH, teacher.get_output_embeddings().weight)
        assert (head.scale, head.softcap, head.bias_V) == (1.0, None, None)
    flip(folder / "head.safetensors")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(AssertionError, match="asked again"),
    ):
        ensure_head(folder, about, never, device, lambda _: None)
    assert f"{folder / 'head.safetensors'} has changed" in caplog.text
