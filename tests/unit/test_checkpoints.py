"""A checkpoint is complete or absent, and damage is found: real kills, real flipped bytes."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from distil.engine import checkpoints
from distil.engine.checkpoints import (
    MANIFEST,
    changes,
    edits,
    ensure_space,
    newest_valid,
    partial_folder,
    publish,
    published,
    rotate,
    seal,
    space_needed,
    verify,
)
from distil.run_check import check_run
from distil.system.files import remove
from distil.types import InputError

FILES = {
    "model.safetensors": b"\x00\x01weights\xff" * 50,
    "state/optimizer.pt": b"moments" * 30,
    "empty.json": b"",
}


def write(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    for name, content in (FILES if files is None else files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def make(root: Path, step: int) -> Path:
    name = f"checkpoint-{step}"
    publish(write(partial_folder(root, name) / name), root / name)
    return root / name


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_published_checkpoint_verifies_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    assert verify(folder) == []
    assert names(tmp_path) == ["checkpoint-5"]
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


def test_manifest_lists_every_file_with_its_own_hash(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        sums = subprocess.run(
            ["sha256sum", folder / entry["name"]], capture_output=True, text=True, check=True
        )
        assert sums.stdout.split()[0] == entry["sha256"]
        assert entry["size"] == len(FILES[entry["name"]])
    assert [entry["name"] for entry in manifest["files"]] == sorted(FILES)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    original_manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for file in [folder / name for name in (*FILES, MANIFEST)]:
        content = file.read_bytes()
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 1 << random.randrange(8)
            file.write_bytes(damaged)
            if not verify(folder):  # white space of the manifest carries nothing
                assert file.name == MANIFEST
                assert json.loads(damaged) == original_manifest
        file.write_bytes(content)
    assert verify(folder) == []


@pytest.mark.parametrize("name", ["model.safetensors", "state/optimizer.pt"])
def test_truncated_missing_and_extra_files_are_named(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path, 5)
    (folder / name).write_bytes(FILES[name][:-1])
    assert verify(folder) == [f"{name} has {len(FILES[name]) - 1} bytes instead of {len(FILES[name])}"]
    (folder / name).unlink()
    assert verify(folder) == [f"{name} is missing"]
    write(folder, {name: FILES[name], "rng_state.pth": b"x"})
    assert verify(folder) == ["rng_state.pth is not in the manifest"]


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", "JSONDecodeError"), (b"{", "JSONDecodeError"), (b"[]", "TypeError"),
     (b"\xff", "UnicodeDecodeError"), (b'{"files": 3}', "TypeError"),
     (b'{"files": [{"name": "a"}]}', "KeyError")],
)  # fmt: skip
def test_unreadable_manifest_is_a_problem_not_a_crash(tmp_path: Path, content: bytes, error: str) -> None:
    folder = make(tmp_path, 5)
    (folder / MANIFEST).write_bytes(content)
    assert verify(folder) == [f"{MANIFEST} cannot be read ({error})"]
    (folder / MANIFEST).unlink()
    assert verify(folder) == [f"{MANIFEST} is missing"]


def test_sizes_alone_are_looked_at_of_files_too_large_to_be_hashed(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    (folder / "model.safetensors").write_bytes(FILES["model.safetensors"][::-1])
    (folder / "empty.json").write_bytes(b"1")
    size = "empty.json has 1 bytes instead of 0"
    assert changes(folder, largest=0) == [size]
    assert changes(folder) == [size, "model.safetensors has changed"]
    bytes_of_it = len(FILES["model.safetensors"])
    assert changes(folder, largest=bytes_of_it - 1) == [size]
    assert changes(folder, largest=bytes_of_it) == [size, "model.safetensors has changed"]


def test_what_a_product_lists_may_be_behind_links_inside_it(tmp_path: Path) -> None:
    """A checkpoint's files may not; a link to nowhere is no file; what lies outside is not looked at."""
    folder = make(tmp_path, 5)
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    assert changes(folder) == []
    assert verify(folder) == ["model.safetensors is no file"]
    (tmp_path / "blob").unlink()
    assert changes(folder) == ["model.safetensors is missing"]
    (tmp_path / "secret").write_bytes(b"x")
    for name in ("../secret", str(tmp_path / "secret"), "a\0b", "\ud800"):
        entry = {"name": name, "size": 5, "sha256": ""}
        (folder / MANIFEST).write_text(json.dumps({"files": [entry]}), encoding="utf-8")
        assert changes(folder) == [f"{name} is missing"]


def test_what_people_may_change_is_an_edit_and_no_damage(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    for name in ("student/weights", "student/card", "scores"):
        (tmp_path / name).write_text(name)
    seal(tmp_path, [tmp_path / "student" / "weights", tmp_path / "scores"], [tmp_path / "student" / "card"])
    assert (changes(tmp_path), edits(tmp_path, "student")) == ([], [])
    (tmp_path / "student" / "card").write_text("other words."[: len("student/card")])
    (tmp_path / "beside").write_text("not of the product")
    (tmp_path / "student" / "more").mkdir()
    (tmp_path / "student" / "more" / "mine").write_text("x")
    assert changes(tmp_path) == []
    assert edits(tmp_path, "student") == ["student/card was edited", "student/more/mine was added"]
    (tmp_path / "student" / "card").unlink()
    assert edits(tmp_path, "student")[0] == "student/card was removed"
    (tmp_path / "student" / "card").symlink_to(write(tmp_path, {"same": b"student/card"}) / "same")
    assert edits(tmp_path, "student") == ["student/more/mine was added"], "a link to the same words"
    (tmp_path / "student" / "weights").unlink()
    assert changes(tmp_path) == ["student/weights is missing"]
    assert "weights" not in "".join(edits(tmp_path, "student")), "damage is told by the other"


@pytest.mark.parametrize("told", ["{", "[]", '{"files": []}', '{"files": [], "editable": 3}'])
def test_of_manifests_without_editable_files_nothing_is_known(tmp_path: Path, told: str) -> None:
    """Damaged ones, and those of earlier versions."""
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "card").write_text("x")
    (tmp_path / MANIFEST).write_text(told)
    assert edits(tmp_path, "student") == []


def test_an_editable_file_lies_inside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    run = tmp_path / "run"
    (run / "student").mkdir(parents=True)
    entry = {"name": "../secret", "size": 1, "sha256": "0"}
    (run / MANIFEST).write_text(json.dumps({"files": [], "editable": [entry]}))
    assert edits(run, "student") == ["../secret was removed"]


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"), (OSError(), "OSError")],
)
def test_a_folder_that_cannot_be_read_is_a_problem_not_a_crash(
    error: OSError, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path) -> list[Path]:
        raise error

    folder = make(tmp_path, 5)
    monkeypatch.setattr(checkpoints, "_files", failing)
    assert verify(folder) == [f"its files cannot be read ({said})"]


def test_a_file_that_cannot_be_read_is_a_problem_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to nowhere; a disk that gives a file no more, or the folder: the older checkpoint is used."""
    older, newer = make(tmp_path, 5), make(tmp_path, 6)
    (newer / "model.safetensors").unlink()
    (newer / "model.safetensors").symlink_to(tmp_path / "nowhere")
    assert verify(newer) == ["model.safetensors is no file"]
    digest = checkpoints.digest_of

    def failing(file: Path) -> str:
        if newer in file.parents:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(file)

    (newer / "model.safetensors").unlink()
    write(newer)
    monkeypatch.setattr(checkpoints, "digest_of", failing)
    assert verify(newer) == [f"{name} cannot be read (Input/output error)" for name in sorted(FILES)]
    newest, notes = newest_valid(tmp_path)
    assert newest == older
    assert "model.safetensors cannot be read" in notes[0]


def test_a_checkpoint_that_is_removed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run rotates while it is looked at: told, not raised."""
    folder = make(tmp_path / "checkpoints", 5)
    (tmp_path / "status.json").write_text('{"status": "running"}', encoding="utf-8")
    listed = checkpoints._files

    def gone(where: Path) -> list[Path]:
        found = listed(where)
        remove(where)
        return found

    monkeypatch.setattr(checkpoints, "_files", gone)
    assert not [line for line in check_run(tmp_path).damaged if line.startswith("checkpoints/")]
    assert not folder.exists()


def test_newest_valid_passes_over_damage_and_says_so(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        make(tmp_path, step)
    (tmp_path / "checkpoint-100" / "model.safetensors").write_bytes(b"short")
    write(partial_folder(tmp_path, "checkpoint-200") / "checkpoint-200")
    newest, notes = newest_valid(tmp_path)
    assert newest == tmp_path / "checkpoint-10"
    assert len(notes) == 1
    assert "checkpoint-100 is damaged" in notes[0]
    assert "model.safetensors" in notes[0]
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-100.damaged", "checkpoint-9"]
    make(tmp_path, 100)  # the step can be written again
    assert newest_valid(tmp_path) == (tmp_path / "checkpoint-100", [])


def test_what_is_set_aside_takes_the_place_of_what_was(tmp_path: Path) -> None:
    """Of one step twice, be there a folder, a link to one, or a link to nowhere."""
    aside, elsewhere = tmp_path / "checkpoint-5.damaged", write(tmp_path / "elsewhere")
    for before in ("nothing", "a folder", "a link", "a link to nowhere"):
        if before.startswith("a link"):
            remove(aside)
            aside.symlink_to(elsewhere if before == "a link" else tmp_path / "nowhere")
        folder = make(tmp_path, 5)
        (folder / "empty.json").unlink()
        (folder / "more").write_bytes(before.encode())
        told = "checkpoint-5 is damaged (more is not in the manifest; empty.json is missing)"
        assert newest_valid(tmp_path) == (None, [f"{told}: set aside as {aside.name}"])
        assert (aside / "more").read_bytes() == before.encode()
        assert not aside.is_symlink()
    assert (elsewhere / "empty.json").exists()


def test_only_folders_named_by_a_step_are_checkpoints(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    for name in ("checkpoint-x", "checkpoint-7.damaged", "old-checkpoint-7", "checkpoint-"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_bytes(b"")
    assert published(tmp_path) == [folder]


def test_a_folder_behind_a_link_is_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    (folder / "more").symlink_to(write(tmp_path / "elsewhere"))
    assert verify(folder) == ["more is not in the manifest"]


def test_every_rank_may_ask_for_the_place_to_write_in(tmp_path: Path) -> None:
    first, second = (partial_folder(tmp_path / "not" / "yet", "checkpoint-5") for _ in range(2))
    assert first == second
    assert first.is_dir()


def test_a_leftover_that_cannot_be_removed_is_no_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "rmdir", busy)
    assert verify(make(tmp_path, 5)) == []


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "never") == (None, [])
    assert newest_valid(tmp_path) == (None, [])


def test_rotation_keeps_the_newest_by_step_and_the_best(tmp_path: Path) -> None:
    for step in (2, 10, 9, 30):
        make(tmp_path, step)
    rotate(tmp_path, keep=2, best=tmp_path / "checkpoint-2")
    assert [folder.name for folder in published(tmp_path)] == [
        "checkpoint-2",
        "checkpoint-10",
        "checkpoint-30",
    ]
    rotate(tmp_path, keep=1)
    assert names(tmp_path) == ["checkpoint-30"]
    with pytest.raises(ValueError, match=r"^keep must be at least 1, got 0$"):
        rotate(tmp_path, keep=0)


def test_publishing_over_a_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    with pytest.raises(FileExistsError, match="checkpoint-5 exists already"):
        make(tmp_path, 5)
    assert verify(folder) == []


SAVE_FOR_EVER = """
import os, sys
from pathlib import Path
from distil.engine.checkpoints import partial_folder, publish, rotate
root = Path(sys.argv[1])
step = int(sys.argv[2])
print("ready", flush=True)
while True:
    step += 1
    name = f"checkpoint-{step}"
    folder = partial_folder(root, name) / name
    folder.mkdir(exist_ok=True)
    for index in range(6):
        (folder / f"part-{index}.bin").write_bytes(os.urandom(20_000))
    publish(folder, root / name)
    rotate(root, keep=2)
"""


def test_killed_at_any_moment_checkpoints_are_complete_or_absent(tmp_path: Path) -> None:
    chance = random.Random(1)
    step, there = 0, 0
    for _ in range(25):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path), str(step)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        found = published(tmp_path)
        assert [verify(folder) for folder in found] == [[]] * len(found)
        # Each save publishes, then rotates down to two: a kill in between leaves one more than there were.
        assert len(found) <= max(2, there) + 1
        there = len(found)
        newest, notes = newest_valid(tmp_path)
        assert notes == []
        assert newest == (found[-1] if found else None)
        assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
        if newest is not None:
            step = int(newest.name.partition("-")[2])
    assert step > 0


def test_too_small_a_disk_is_refused_by_need_and_have(tmp_path: Path) -> None:
    ensure_space(tmp_path / "not" / "yet", 1)
    way_out = r".*fewer checkpoints \(trainer\.save_total_limit=1\)\."
    with pytest.raises(InputError, match=rf"^output_dir=.* take 1e\+06 TB, .* are free\. {way_out}$"):
        ensure_space(tmp_path / "not" / "yet", 10**18)


def test_a_disk_is_large_enough_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, asked = 999, []

    def usage(place: Path) -> SimpleNamespace:
        asked.append(place)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    ensure_space(tmp_path, free)
    with pytest.raises(InputError, match=" take 1 kB, 999 bytes are free"):
        ensure_space(tmp_path / "not" / "yet", free + 1)
    assert asked == [tmp_path, tmp_path]


def test_space_for_weights_moments_copies_and_product() -> None:
    # 100 bytes of weights, all trained: 300 a checkpoint; 2 kept, the best, a new one; and the product.
    assert space_needed(100, 100, keep=2) == 4 * 300 + 100
    # An adapter of 10 bytes.
    assert space_needed(10, 10, keep=1) == 3 * 30 + 10
