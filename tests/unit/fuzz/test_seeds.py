"""What fuzzing found, one input each: they end in a word for the user, or in nothing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from distil.adapters.existing import ADAPTER_CONFIG, WEIGHTS, check_stored
from distil.cli import main as command
from distil.config.saved import saved_config
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.data.base import ColumnsConfig
from distil.data.splits import encode_rows
from distil.engine import checkpoints
from distil.engine.checkpoint_reading import readable
from distil.models import load_tokenizer
from distil.report.comparison.compare import compare
from distil.report.comparison.files import write_comparison
from distil.report.run_directory import read_run
from distil.run_check import check_run
from distil.system.environment import code_version
from distil.system.files import read_json, write_json
from distil.teacher_cache.answers import CachedTeacher, read_head
from distil.teacher_cache.formats.topk import TopK, TopKConfig
from distil.teacher_cache.manifest import MANIFEST, Manifest, Shard, caches, damage, whole
from distil.teacher_cache.store import Reader, write_shard
from distil.types import InputError, RunFailed
from distil.verbs.cache import main
from scripts.fuzz.seeds import ROWS
from scripts.fuzz.targets import bytes_tokenizer
from tests.unit.report.made_up_run import write_run

CPU = torch.device("cpu")


def cache(root: Path, about: Any = None, **tensors: Any) -> Path:
    """A folder that looks like a cache of two rows and three positions."""
    folder = root / "topk-0123456789ab"
    folder.mkdir(parents=True)
    shard = write_shard(folder, "00000.safetensors", 0, [2, 1], tensors or {"hidden_NH": torch.zeros(3, 4)})
    Manifest({"rows": 2} if about is None else about, (shard,), complete=True).write(folder)
    return folder


ABOUTS = [
    "text",
    {"rows": "two"},
    {"rows": 2, "key": "text"},
    {"rows": 2, "key": {"format": "text"}},
    {"rows": 2, "key": {"teacher": [1]}},
]


@pytest.mark.parametrize("about", ABOUTS, ids=str)
def test_a_manifest_of_another_form_is_none(
    about: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cache(tmp_path, about)
    assert whole(folder) is None
    assert main(["info", "--folder", str(tmp_path)]) == 0
    assert main(["verify", "--folder", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "../../outside.safetensors"), ("name", "\ud800.safetensors"), ("name", ["a"]), ("rows", "2"),
     ("size", -1), ("tokens", 1.5), ("first_row", True)],
)  # fmt: skip
def test_a_shard_is_a_file_of_its_folder_and_counts_are_counts(key: str, value: Any, tmp_path: Path) -> None:
    folder = cache(tmp_path)
    manifest = read_json(folder / MANIFEST)
    manifest["shards"][0][key] = value
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert Manifest.read(folder) is None
    assert caches(tmp_path) == {folder: None}


@pytest.mark.parametrize(
    "tensors",
    [{"hidden_NH": torch.zeros(2, 4)}, {"entries_N": torch.ones(9)}, {"a": torch.tensor(1)}],
    ids=["short", "entries", "scalar"],
)  # fmt: skip
def test_tensors_that_are_not_of_their_rows(tensors: dict[str, Any], tmp_path: Path) -> None:
    folder = cache(tmp_path, **tensors)
    manifest = whole(folder)
    assert manifest is not None
    with pytest.raises(InputError, match=r"holds no answers of a teacher .* distil cache clear topk-0123"):
        Reader(folder, manifest)


def test_bytes_that_are_no_tensors(tmp_path: Path) -> None:
    folder = cache(tmp_path)
    (folder / "00000.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b'{"a": 1}')
    manifest = Manifest.read(folder)
    assert manifest is not None
    with pytest.raises(InputError, match=r"holds no answers of a teacher"):
        Reader(folder, manifest)
    (folder / "head.safetensors").write_bytes((folder / "00000.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"head.safetensors holds no answers"):
        read_head(folder, CPU)


def test_tensors_of_another_format(tmp_path: Path) -> None:
    folder = cache(tmp_path)
    manifest = whole(folder)
    assert manifest is not None
    with pytest.raises(InputError, match=r"holds no answers of a teacher .KeyError"):
        CachedTeacher(Reader(folder, manifest), TopK(TopKConfig(k=2)), None, CPU)


@pytest.mark.parametrize("name", ["status.json", "config.yaml", "metrics.jsonl", "results.json"])
def test_what_has_no_end_is_not_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/dev/zero")
    (tmp_path / "status.json").touch() if name == "config.yaml" else None
    assert any(problem.startswith(f"{name} cannot be read") for problem in read_run(tmp_path).problems)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert any(problem.startswith(f"{name} cannot be read") for problem in read_run(tmp_path).problems)


def test_links_in_caches_and_checkpoints_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    assert damage(tmp_path, Shard("zero.safetensors", 0, 0, 0, 0, "")) is not None
    (tmp_path / "new" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "new" / "checkpoint-1" / "a.pt").write_bytes(b"")
    folder = tmp_path / "checkpoint-1"
    checkpoints.publish(tmp_path / "new" / "checkpoint-1", folder)
    assert checkpoints.verify(folder) == []
    for target in ("/dev/zero", "missing"):
        (folder / "a.pt").unlink()
        (folder / "a.pt").symlink_to(target)
        assert checkpoints.verify(folder) == ["a.pt is no file"]


def test_json_without_end_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 99_999)
    with pytest.raises(ValueError, match=r"a.json is nested too deeply"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("kind", [None, {"a": 1}, ["LORA"]])
def test_an_adapter_of_no_kind(kind: Any, tmp_path: Path) -> None:
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": kind}))
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError, match=r"names no peft_type"):
        check_stored(tmp_path, {"peft_type": "LORA"})


def changed_tokenizer(folder: Path, file: str, key: str, value: Any) -> ModelConfig:
    bytes_tokenizer().save_pretrained(folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, key: value}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return ModelConfig("custom", TeacherConfig(), StudentConfig(path=str(folder)))


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("tokenizer.json", "normalizer", {"type": "none"}), ("tokenizer.json", "model", 1.5),
     ("tokenizer_config.json", "tokenizer_class", 3)],
)  # fmt: skip
def test_tokenizers_that_cannot_be_loaded(file: str, key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.student.path"):
        load_tokenizer(changed_tokenizer(tmp_path, file, key, value), allow_network=False)


def test_tokenizers_that_cannot_read(tmp_path: Path) -> None:
    model = changed_tokenizer(tmp_path, "tokenizer_config.json", "model_max_length", "long")
    tokenizer, _ = load_tokenizer(model, allow_network=False)
    with pytest.raises(InputError, match=r"its tokenizer cannot read this text: TypeError"):
        encode_rows(ColumnsConfig(name="rows"), ROWS, tokenizer, "rows")


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ messages[0].content.x.y }}", "{{" + "(" * 9000 + "}}"]
)
def test_templates_that_fail(template: str) -> None:
    tokenizer = bytes_tokenizer(template)
    with pytest.raises(InputError, match=r"the tokenizer's chat template refuses turns by user"):
        encode_rows(ColumnsConfig(name="rows"), ROWS, tokenizer, "rows")


CONFIGS = [
    ("model", "text"), ("trainer", [1]), ("trainer", {"learning_rate": 10**400}), ("seed", "0"),
    ("trainer", {"per_device_train_batch_size": 2**61 - 1, "auto_find_batch_size": True}), ("name", 3),
    ("method", {"name": "kd", "temperature": 1e308}), ("eval", {"metrics": [["rouge"]]}),
    ("model", {"name": "x", "student": {"overrides": []}}), ("run", {"plugins": "text"}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), CONFIGS, ids=str)
def test_saved_configs_of_other_types(key: str, value: Any, tmp_path: Path) -> None:
    config = yaml.safe_load((write_run(tmp_path) / "config.yaml").read_text())
    assert saved_config(tmp_path / "config.yaml", config).method.name == "kd"
    with pytest.raises(InputError, match=r"config.yaml"):
        saved_config(tmp_path / "config.yaml", {**config, key: value})


@pytest.mark.parametrize("word", ["model=" + "9" * 5000, "trainer.learning_rate=1" + "0" * 400])
def test_command_lines_with_much_too_much(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["run", word]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_what_a_checkpoint_holds_is_said_to_be_at_fault() -> None:
    with pytest.raises(RunFailed, match=r"^c-1: .*KeyError: 'a'.* run.resume=false"), readable("c-1"):
        raise KeyError("a")
    with pytest.raises(KeyError), readable(None):
        raise KeyError("a")
    with pytest.raises(InputError, match=r"^other$"), readable("checkpoint-1"):
        raise InputError("other")


def test_a_shard_says_all_that_it_is() -> None:
    """The manifest's entries are the fields of a shard."""
    assert set(asdict(Shard("a.safetensors", 0, 0, 0, 0, ""))) == {
        "name", "first_row", "rows", "tokens", "size", "sha256"
    }  # fmt: skip


def test_half_a_surrogate_pair_is_written_as_json_spells_it(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": "\ud800", "b": "é"})
    assert read_json(tmp_path / "a.json") == {"a": "\ud800", "b": "é"}


@pytest.mark.parametrize(
    "told",
    [
        {"ignored": [{"no": "key"}], "fingerprints": {}},
        {"ignored": [], "fingerprints": {"data.path": "\ud800"}},
    ],
    ids=["keys", "surrogate"],
)
def test_what_a_run_says_of_itself_in_another_form(told: dict[str, Any], tmp_path: Path) -> None:
    """Held to its identity where the code is the run's; other code may count other keys, and says so."""
    run = write_run(tmp_path / "run")
    write_json(run / "status.json", read_json(run / "status.json") | {"identity": "0123456789"})
    for code, damaged in ((code_version(), True), ("0+other", False)):
        made = read_json(run / "environment.json") | told | {"code": code}
        write_json(run / "environment.json", made)
        found = check_run(run)
        assert any("not the run's own" in line for line in found.damaged) is damaged
        assert any("made by other code" in line for line in found.notes) is not damaged


def test_a_method_whose_name_is_no_text_is_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "one")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["method"]["name"] = {"no": "name"}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    page = write_comparison(compare([run]), tmp_path / "comparison")
    assert page.is_file()
