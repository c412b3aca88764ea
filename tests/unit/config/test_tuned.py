"""Which files of tuned keys a config was composed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from distil.cli import _compose
from distil.config.store import register_schemas
from distil.identity import fingerprint_path

CONF = Path(__file__).resolve().parents[3] / "conf"
RATE = "# @package _global_\ntrainer:\n  learning_rate: 2e-4\n"


@pytest.fixture(autouse=True)
def _schemas() -> None:
    register_schemas()


def test_the_file_of_a_pairs_adapter_is_told_with_what_it_sets() -> None:
    config, tuned = _compose(["model=embedded_pruned", "peft=lora"])
    name = "tuned_adapter/embedded_pruned_lora.yaml"
    told = {"file": name, "digest": fingerprint_path(CONF / name)}
    assert tuned[1:] == [told | {"sets": {"trainer.learning_rate": config.trainer.learning_rate}}]


def test_the_recipe_of_a_pair_is_told_first_and_a_pair_without_one_has_none() -> None:
    config, (told,) = _compose(["method=kd"])
    assert (told["file"], told["sets"]["trainer.learning_rate"]) == (
        "recipe/embedded.yaml",
        config.trainer.learning_rate,
    )
    assert _compose(["method=kd", "model=gpt2"])[1] == []


@pytest.mark.parametrize("head", ["_global_", "trainer"])
def test_a_file_of_ones_own_config_folder_is_told_too(tmp_path: Path, head: str) -> None:
    file = tmp_path / "tuned" / "embedded_sft.yaml"
    file.parent.mkdir()
    text = RATE if head == "_global_" else "# @package trainer\nlearning_rate: 2e-4\n"
    file.write_text(text, encoding="utf-8")
    search = f"hydra.searchpath=['file://{tmp_path}']"
    config, (_, told) = _compose(["method=sft", search])
    assert config.trainer.learning_rate == 2e-4
    assert told == {
        "file": "tuned/embedded_sft.yaml",
        "digest": fingerprint_path(file),
        "sets": {"trainer.learning_rate": 2e-4},
    }
    config, (_, told) = _compose(["method=sft", "trainer.learning_rate=1", search])
    assert (config.trainer.learning_rate, told["sets"]) == (1, {"trainer.learning_rate": 2e-4})
