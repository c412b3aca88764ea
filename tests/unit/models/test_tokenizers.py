"""The one tokenizer of a run, and the ids both models share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import load_tokenizer, shared_vocabulary
from distil.types import InputError

if TYPE_CHECKING:
    from tests.conftest import ModelFactory

WORDS = ["<unk>", "the", "cat", "sat", "<end>"]


def save_tokenizer(
    folder: Path, words: list[str] = WORDS, template: str | None = None, **special: Any
) -> Path:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **special)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def config(teacher: Path | None, student: Path | None) -> ModelConfig:
    return ModelConfig(
        "m", TeacherConfig(path=teacher and str(teacher)), StudentConfig(path=student and str(student))
    )


def test_pad_is_eos_where_there_is_none(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path, eos_token="<end>")
    tokenizer, notes = load_tokenizer(config(None, folder))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 4
    assert len(tokenizer) == len(WORDS)
    assert notes == []


def test_a_pad_token_of_its_own_stays(tmp_path: Path) -> None:
    tokenizer, _ = load_tokenizer(
        config(save_tokenizer(tmp_path, eos_token="<end>", pad_token="<unk>"), None)
    )
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 4)


def test_the_students_if_it_has_one_else_the_teachers(tmp_path: Path) -> None:
    teacher = save_tokenizer(tmp_path / "teacher", eos_token="<end>")
    (tmp_path / "bare").mkdir()
    tokenizer, notes = load_tokenizer(config(teacher, tmp_path / "bare"))
    assert tokenizer.name_or_path == str(teacher)
    assert notes == []
    tokenizer, notes = load_tokenizer(config(tmp_path / "bare", teacher))
    assert tokenizer.name_or_path == str(teacher)
    assert len(notes) == 1
    with pytest.raises(InputError, match="no tokenizer there nor with the teacher"):
        load_tokenizer(config(tmp_path / "bare", None))


def test_no_eos(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no EOS token"):
        load_tokenizer(config(None, save_tokenizer(tmp_path)))


def test_other_eos_and_template_are_said(tmp_path: Path) -> None:
    teacher = save_tokenizer(tmp_path / "t", eos_token="<end>", template="{{ messages }}")
    student = save_tokenizer(tmp_path / "s", eos_token="<unk>")
    tokenizer, notes = load_tokenizer(config(teacher, student))
    assert tokenizer.eos_token == "<unk>"
    assert len(notes) == 2
    assert "'<end>', '<unk>'" in notes[0]
    assert "only the teacher has a chat template" in notes[1]


def test_other_ids_are_refused(tmp_path: Path) -> None:
    teacher = save_tokenizer(tmp_path / "t", eos_token="<end>")
    student = save_tokenizer(tmp_path / "s", ["<unk>", "cat", "the", "sat", "<end>"], eos_token="<end>")
    with pytest.raises(InputError, match="2 of the 5 shared ids differ: id 1 is 'the' to the teacher"):
        load_tokenizer(config(teacher, student))


def test_damaged_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"model\.teacher\.path=.* cannot be loaded"):
        load_tokenizer(config(tmp_path, None))


def test_shared_vocabulary(tiny_llama: ModelFactory, tiny_gpt2: ModelFactory, tmp_path: Path) -> None:
    tokenizer, _ = load_tokenizer(config(None, save_tokenizer(tmp_path, eos_token="<end>")))
    assert shared_vocabulary(tiny_llama(vocab=12), tiny_llama(vocab=8), tokenizer) == 8
    assert shared_vocabulary(tiny_gpt2(vocab=8), tiny_llama(vocab=12), tokenizer) == 8
    assert shared_vocabulary(None, tiny_llama(vocab=5), tokenizer) == 5
    with pytest.raises(InputError, match=r"model\.teacher\.path: the model knows 4 ids, .* up to 4"):
        shared_vocabulary(tiny_llama(vocab=4), tiny_llama(vocab=8), tokenizer)


def test_real_tokenizers(shared_data: Path) -> None:
    models_ = shared_data / "models"
    tokenizer, _ = load_tokenizer(config(models_ / "stories260K", None))
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<s>", 1)
    with pytest.raises(InputError, match="512 tokens against 2,048"):
        load_tokenizer(config(models_ / "stories260K", models_ / "TinyStories-656K"))
    tokenizer, _ = load_tokenizer(config(shared_data / "tokenizers" / "gpt2", None))
    assert tokenizer.pad_token_id == 50256
    assert len(tokenizer) == 50257
