"""The same run has the same identity, another run another one, and the folder follows."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from distil import identity
from distil.config.schema import (
    DataConfig,
    EvalConfig,
    ExperimentConfig,
    MethodConfig,
    ModelConfig,
    PeftConfig,
    RolloutConfig,
    RunConfig,
    TrackerConfig,
)
from distil.identity import fingerprint_path, run_folder, run_identity
from distil.preflight import fingerprints
from distil.system.files import write_json
from distil.types import InputError

CONFIG: dict[str, Any] = {
    "name": "default",
    "seed": 0,
    "output_dir": "outputs",
    "method": {"name": "kd", "temperature": 2.0, "kd_loss_weight": 0.5},
    "model": {
        "name": "any",
        "teacher": {"path": "teacher"},
        "student": {"path": "student", "keep_layers": [0, 2]},
    },
    "data": {"name": "jsonl", "train_file": "train.jsonl", "max_length": 512},
    "trainer": {
        "learning_rate": 1e-4,
        "max_steps": 10,
        "save_steps": 5,
        "logging_steps": 5,
        "hub_token": "a",
    },
    "run": {"resume": True, "rerun": False, "plugins": []},
    "eval": {"samples": 20, "generation_rows": 64},
    "tracker": {"name": "none"},
}
FINGERPRINTS = {"data.train_file": "0123", "model.teacher.path": "4567"}


def changed(key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    *parents, leaf = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    return config


def of(config: dict[str, Any], **others: Any) -> str:
    return run_identity(config, **{"fingerprints": FINGERPRINTS, "code": "1", **others})


def test_ten_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{10}", of(CONFIG))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("method.name", "revkd"),
        ("method.temperature", 2.5),
        ("model.student.path", "other"),
        ("model.student.keep_layers", [0, 3]),
        ("data.max_length", 511),
        ("trainer.learning_rate", 2e-4),
        ("trainer.max_steps", 11),
        ("eval.generation_rows", 63),
        ("run.packing", True),
    ],
)
def test_what_changes_results_changes_the_identity(key: str, value: Any) -> None:
    assert of(changed(key, value)) != of(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("output_dir", "elsewhere"),
        ("tracker", {"name": "wandb", "project": "p"}),
        ("run.resume", False),
        ("run.rerun", True),
        ("run.plugins", ["mine.py"]),
        ("eval.samples", 5),
        ("eval.batch_size", 1),
        ("trainer.per_device_eval_batch_size", 1),
        ("trainer.logging_steps", 1),
        ("trainer.save_steps", 1),
        ("trainer.hub_token", "b"),
        ("trainer.dataloader_num_workers", 2),
        ("method.temperature", 2),  # one number, written otherwise
        ("data.train_file", "moved/train.jsonl"),  # its fingerprint speaks for it
    ],
)
def test_what_changes_no_result_does_not(key: str, value: Any) -> None:
    assert of(changed(key, value)) == of(CONFIG)


def test_order_of_keys_does_not_matter() -> None:
    assert of(dict(reversed(CONFIG.items()))) == of(CONFIG)


def test_files_and_code_count() -> None:
    assert of(CONFIG, code="2") != of(CONFIG)
    assert of(CONFIG, fingerprints={**FINGERPRINTS, "data.train_file": "9"}) != of(CONFIG)
    assert of(CONFIG, fingerprints={**FINGERPRINTS, "plugin mine.py": "9"}) != of(CONFIG)


def test_keys_a_method_ignores() -> None:
    ignored = ("method.temperature", "model.student")
    assert of(changed("method.temperature", 9), ignored=ignored) == of(CONFIG, ignored=ignored)
    assert of(changed("model.student.path", "x"), ignored=ignored) == of(CONFIG, ignored=ignored)
    assert of(changed("method.kd_loss_weight", 0.9), ignored=ignored) != of(CONFIG, ignored=ignored)


def test_saving_counts_where_the_best_checkpoint_is_the_product() -> None:
    best = changed("trainer.load_best_model_at_end", True)
    often = copy.deepcopy(best)
    often["trainer"]["save_steps"] = 1
    assert of(best) != of(often)


def test_fingerprint_is_of_contents_not_of_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "config.json").write_bytes(b"{}")
        (tmp_path / name / "sub" / "weights").write_bytes(b"123")
    (tmp_path / "b" / ".cache").mkdir()
    (tmp_path / "b" / ".cache" / "junk").write_bytes(b"x")
    assert fingerprint_path(tmp_path / "a") == fingerprint_path(tmp_path / "b")
    (tmp_path / "b" / "sub" / "weights").write_bytes(b"124")
    assert fingerprint_path(tmp_path / "a") != fingerprint_path(tmp_path / "b")
    (tmp_path / "b" / "sub" / "weights").write_bytes(b"123")
    (tmp_path / "b" / "sub" / "weights").rename(tmp_path / "b" / "sub" / "tensors")
    assert fingerprint_path(tmp_path / "a") != fingerprint_path(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        fingerprint_path(tmp_path / "none")


def test_large_files_are_sampled_at_both_ends_and_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr(identity, "BLOCK_BYTES", 10)
    file = tmp_path / "weights"
    content = bytes(range(256)) * 40
    file.write_bytes(content)
    seen = {fingerprint_path(file)}
    for position in (0, 9, len(content) - 10, len(content) - 1):
        file.write_bytes(content[:position] + b"\xee" + content[position + 1 :])
        seen.add(fingerprint_path(file))
    file.write_bytes(content + b"x")
    seen.add(fingerprint_path(file))
    other = bytes(reversed(content))
    file.write_bytes(other)
    seen.add(fingerprint_path(file))
    assert len(seen) == 7


def experiment(
    tmp_path: Path, name: str = "default", *, rerun: bool = False, model: str = "embedded"
) -> ExperimentConfig:
    return ExperimentConfig(
        name=name,
        seed=3,
        output_dir=str(tmp_path),
        method=MethodConfig(name="kd"),
        model=ModelConfig(name=model),
        peft=PeftConfig(name="none"),
        rollouts=RolloutConfig(),
        data=DataConfig(name="embedded"),
        trainer={},
        run=RunConfig(rerun=rerun),
        eval=EvalConfig(),
        tracker=TrackerConfig(name="none"),
    )


def test_every_plugin_counts_those_of_one_name_too(tmp_path: Path) -> None:
    folders = [tmp_path / where / "methods" for where in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "mine.py").write_text(f"# {folder.parent.name}", encoding="utf-8")

    def prints(plugins: list[Path]) -> dict[str, str]:
        made = experiment(tmp_path)
        made.model.teacher.path = "distil:embedded/teacher"
        made.run.plugins = [str(plugin) for plugin in plugins]
        return fingerprints(made)

    both, first = prints(folders), prints(folders[:1])
    assert both == prints(folders[::-1]) != first == prints(folders[:1] * 2)
    (folders[0] / "mine.py").write_text("# changed", encoding="utf-8")
    assert prints(folders) != both


def status(folder: Path, value: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "status.json", {"status": value})


def test_the_folder_is_readable_and_stable(tmp_path: Path) -> None:
    folder = run_folder(experiment(tmp_path), "0123456789")
    assert folder == tmp_path / "default" / "kd-embedded-none-s3-0123456789"
    assert run_folder(experiment(tmp_path, model="org/some model"), "0").name == "kd-org_some_model-none-s3-0"


def test_reruns_stand_beside_and_the_newest_done_is_found(tmp_path: Path) -> None:
    plain, again = experiment(tmp_path), experiment(tmp_path, rerun=True)
    first = run_folder(plain, "h")
    assert run_folder(again, "h") == first  # nothing to keep yet
    status(first, "interrupted")
    assert run_folder(again, "h") == run_folder(plain, "h") == first
    status(first, "done")
    second = run_folder(again, "h")
    assert second.name == f"{first.name}-r2"
    status(second, "running")
    assert run_folder(plain, "h") == first  # done: its result is there
    assert run_folder(again, "h") == second  # the rerun goes on
    status(second, "done")
    assert run_folder(plain, "h") == second
    assert run_folder(again, "h").name == f"{first.name}-r3"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 1}'])
def test_an_unreadable_status_is_not_done(tmp_path: Path, content: str) -> None:
    folder = run_folder(experiment(tmp_path), "h")
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(content, encoding="utf-8")
    assert run_folder(experiment(tmp_path, rerun=True), "h") == folder


@pytest.mark.parametrize("name", ["", "/abs", "../up", "a/../../b"])
def test_a_name_stays_below_output_dir(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name="):
        run_folder(experiment(tmp_path, name), "h")
