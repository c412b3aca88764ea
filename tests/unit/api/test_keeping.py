"""Students taken up, refused and saved: whole or not at all; and commands that would not train the same."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from datasets import Dataset, DatasetDict
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from distil.api.in_hand import changed
from distil.data.columns import Kind, Shape
from distil.models.pruning import decoder_blocks, prune_layers
from distil.models.sources import ASSETS
from distil.products.library import open_product
from llm_distil import ArgumentError, DistillationConfig, KnowledgeDistillation
from tests.conftest import build_llama
from tests.training import distance

Load = Callable[..., PreTrainedModel]
Make = Callable[..., DistillationConfig]


@pytest.fixture
def small(hub: Path, tmp_path: Path) -> Path:
    """A folder of a model that knows fewer ids than the tokenizer gives."""
    build_llama(64, seed=3).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def learns(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, tokenizer: PreTrainedTokenizerBase
) -> KnowledgeDistillation:
    """All of a student, under the usual config."""
    return KnowledgeDistillation(teacher, student, make(), tokenizer)


def test_a_refused_model_stays_as_it_was_given(
    small: Path, teacher: PreTrainedModel, make: Make, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = AutoModelForCausalLM.from_pretrained(small)
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(ArgumentError, match="knows 64 ids"):
        KnowledgeDistillation(teacher, model, make(use_peft=True), tokenizer)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(p.requires_grad for p in model.parameters())
    KnowledgeDistillation(build_llama(64, seed=1), model, make(use_peft=True))  # it can be given again


@pytest.mark.parametrize("keys", [{}, {"use_peft": True}])
def test_a_refused_folder_changes_nothing(
    keys: dict[str, Any],
    small: Path,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    learns = KnowledgeDistillation(teacher, student, make(**keys), tokenizer)
    held, said = learns.student, learns.command()
    with pytest.raises(ArgumentError, match=rf"^model_path={small}: .*knows 64 ids"):
        learns.load_student(small)
    assert learns.student is held
    assert learns.command() == said
    learns.save_student(tmp_path / "saved")
    assert learns.load_student(tmp_path / "saved") is learns.student


def test_an_adapter_whose_base_was_freed_says_what_to_do(
    teacher: PreTrainedModel, student: PreTrainedModel, load: Load, make: Make, hub: Path, tmp_path: Path
) -> None:
    learns = KnowledgeDistillation(teacher, student, make(use_peft=True))
    learns.save_student(tmp_path / "adapter")
    learns.free_student()
    with pytest.raises(ArgumentError, match="Make a new KnowledgeDistillation of the base model"):
        _ = learns.student
    with pytest.raises(ArgumentError, match="its base was freed with the student") as caught:
        learns.load_student(tmp_path / "adapter")
    assert str(hub / "gpt2") in str(caught.value)
    again = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True))
    again.load_student(tmp_path / "adapter")


def test_an_earlier_student_stays_whole_until_the_new_one_is_written(
    learns: KnowledgeDistillation,
    student: PreTrainedModel,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "saved"
    learns.save_student(folder)
    (folder / "notes.txt").write_text("the user's own", encoding="utf-8")
    names = sorted(path.name for path in folder.iterdir())
    first = {name: (folder / name).read_bytes() for name in names}
    learns.train(rows)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "save_pretrained", full)  # behind the weights
        with pytest.raises(ArgumentError, match="No space left"):
            learns.save_student(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    learns.save_student(folder)
    assert sorted(path.name for path in folder.iterdir()) == names
    assert distance(AutoModelForCausalLM.from_pretrained(folder), student) == 0
    assert (folder / "model.safetensors").read_bytes() != first["model.safetensors"]


def test_a_model_that_it_did_not_write_is_not_written_over(
    teacher: PreTrainedModel, make: Make, rows: Dataset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    build_llama(len(tokenizer), seed=3).save_pretrained(folder)
    (folder / "README.md").write_text("the user's own", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    learns = KnowledgeDistillation(teacher, AutoModelForCausalLM.from_pretrained(folder), make(), tokenizer)
    learns.train(rows.select(range(4)))
    with pytest.raises(
        ArgumentError, match=rf"^save_student: output_dir={folder} holds a model .*\(config.json, .*another"
    ):
        learns.save_student(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    learns.save_student(tmp_path / "other")
    assert distance(AutoModelForCausalLM.from_pretrained(tmp_path / "other"), learns.student) == 0


@pytest.mark.parametrize("found", ["tokenizer_config.json", "tokenizer.json"])
def test_a_readme_and_a_tokenizer_that_it_did_not_write_stay(
    learns: KnowledgeDistillation,
    found: str,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / found).write_text("{}", encoding="utf-8")
    (tmp_path / "README.md").write_text("the user's own", encoding="utf-8")
    for said in (f"README.md, {found}", found, found):  # over its own from the second on
        caplog.clear()
        learns.save_student(tmp_path)
        assert f"its own {said} before, kept as found" in caplog.text
        assert (tmp_path / found).read_text("utf-8") == "{}"
        assert len(list(tmp_path.glob("tokenizer*"))) == 1
    assert (tmp_path / "README.md").read_text("utf-8") == "the user's own"
    assert "llm_distil" in (tmp_path / "distillation_card.md").read_text("utf-8")
    assert distance(AutoModelForCausalLM.from_pretrained(tmp_path), student) == 0
    (tmp_path / found).unlink()  # then there is none to keep
    for _ in range(2):
        learns.save_student(tmp_path)
        assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(tokenizer)
        assert not (tmp_path / ".kept.json").exists()


def test_a_student_saved_over_its_own_start_has_no_command(
    learns: KnowledgeDistillation,
    student: PreTrainedModel,
    rows: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "saved"
    learns.save_student(folder)
    learns.load_student(folder)
    learns.train(rows.select(range(4)))
    learns.save_student(tmp_path / "elsewhere")
    assert "No command line says the same" not in (tmp_path / "elsewhere" / "README.md").read_text("utf-8")
    learns.save_student(folder)
    assert f"it began from what was in {folder}" in (folder / "README.md").read_text("utf-8")
    assert distance(AutoModelForCausalLM.from_pretrained(folder), learns.student) == 0
    caplog.clear()
    learns.command()
    assert f"it began from what was in {folder}" in caplog.text


# ---- commands that would train another student


def untold_after(learns: KnowledgeDistillation, rows: Dataset, caplog: pytest.LogCaptureFixture) -> str:
    learns.train(rows.select(range(4)))
    caplog.clear()
    learns.command("rows")
    return caplog.text


def test_a_student_with_an_adapter_of_its_own_is_told_in_card_and_command(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    hub: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrapped: Any = get_peft_model(student, LoraConfig(target_modules=["q_proj"], r=2))
    learns = KnowledgeDistillation(teacher, wrapped, make())
    assert "the adapter that was trained was the caller's own" in untold_after(learns, rows, caplog)
    learns.save_student(tmp_path / "own")
    card = (tmp_path / "own" / "README.md").read_text("utf-8")
    assert "\nlibrary_name: peft\n" in card
    assert "No command line says the same" in card
    assert (
        f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{hub / "gpt2"}"), FOLDER)' in card
    )
    assert "distil merge" not in card, "which has no word of its base"
    assert "merge_and_unload()" in card


def test_what_the_names_of_the_config_do_not_bring_is_told(
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = KnowledgeDistillation(teacher, load("gpt2"), make())
    assert untold_after(told, rows, caplog) == ""
    frozen = load("gpt2")
    frozen.get_input_embeddings().weight.requires_grad_(False)
    assert "part of the student was frozen" in untold_after(
        KnowledgeDistillation(teacher, frozen, make()), rows, caplog
    )
    shutil.copytree(hub / "gpt2", tmp_path / "elsewhere")
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "elsewhere")
    said = untold_after(KnowledgeDistillation(teacher, other, make()), rows, caplog)
    assert (
        f"its student came from {tmp_path / 'elsewhere'}, not from student_model_name={hub / 'gpt2'}" in said
    )
    made = type(other)(other.config)
    made.name_or_path = ""
    said = untold_after(KnowledgeDistillation(teacher, made, make()), rows, caplog)
    assert "its student came from no folder and no hub name" in said
    shipped = AutoModelForCausalLM.from_pretrained(ASSETS / "embedded" / "teacher")
    ours = DistillationConfig("distil:embedded/teacher", str(hub / "gpt2"), **short(make()))
    assert untold_after(KnowledgeDistillation(shipped, load("gpt2"), ours), rows, caplog) == ""
    monkeypatch.chdir(hub)
    relative = DistillationConfig("gpt2-medium", "gpt2", **short(make()))
    assert untold_after(KnowledgeDistillation(teacher, load("gpt2"), relative), rows, caplog) == ""


def test_a_model_that_was_cut_or_changed_in_memory_is_told_before_and_after(
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    hub: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The command names the folder it came from, which brings another student."""
    whole = len(decoder_blocks(load("gpt2"))[1])
    for peft in (False, True):
        cut = load("gpt2")
        prune_layers(cut, [0])
        learns = KnowledgeDistillation(teacher, cut, make(use_peft=peft))
        how = f"and was changed in memory (layers here: 1, there: {whole})"
        told = f"its student came from {hub / 'gpt2'}, {how}"
        caplog.clear()
        learns.command("rows")
        assert told in caplog.text, "before it is trained"
        assert told in untold_after(learns, rows, caplog)
        assert "save_pretrained before training gives it a folder to name" in caplog.text
        learns.save_student(tmp_path / f"cut {peft}")
        assert told in (tmp_path / f"cut {peft}" / "README.md").read_text("utf-8")
    moved = load("gpt2")
    with torch.no_grad():
        moved.get_input_embeddings().weight.mul_(1.5)
    said = untold_after(KnowledgeDistillation(teacher, moved, make()), rows, caplog)
    assert "tensors are others, embed_tokens.weight among them)" in said
    mine = load("gpt2-medium")
    mine.get_output_embeddings().weight.data += 1
    assert "its teacher came from" in untold_after(
        KnowledgeDistillation(mine, load("gpt2"), make()), rows, caplog
    )


def test_a_model_that_is_partly_offloaded_is_held_against_its_files_as_far_as_it_is_here(
    load: Load, make: Make, rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    """Its weights are meta tensors between two calls."""
    away = load("gpt2-medium")
    cpu_offload(decoder_blocks(away)[1][0])
    assert any(p.is_meta for p in away.parameters())
    assert untold_after(KnowledgeDistillation(away, load("gpt2"), make()), rows, caplog) == ""
    with torch.no_grad():
        away.get_input_embeddings().weight.mul_(1.5)
    learns = KnowledgeDistillation(away, load("gpt2"), make())
    caplog.clear()
    learns.command("rows")
    assert "embed_tokens.weight among them" in caplog.text


def test_a_teacher_that_is_offloaded_as_a_whole_evaluates_as_it_does_in_memory(
    load: Load, make: Make, rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    away = load("gpt2-medium")
    cpu_offload(away)
    few = rows.select(range(4))
    told, known = (
        KnowledgeDistillation(one, load("gpt2"), make()).evaluate(few) for one in (away, load("gpt2-medium"))
    )
    assert told == pytest.approx(known)
    assert untold_after(KnowledgeDistillation(away, load("gpt2"), make()), rows, caplog) == ""


def test_a_model_of_another_revision_was_not_changed_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its config tells no revision, it may be either."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--known"
    for commit, seed in (("a" * 40, 1), ("b" * 40, 2)):
        build_llama(64, seed=seed).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)

    def said(commit: str, told: str | None, plus: float = 0) -> str:
        model = AutoModelForCausalLM.from_pretrained(repository / "snapshots" / commit)
        model.config._commit_hash = told
        model.get_output_embeddings().weight.data += plus
        return changed(model, "owner/known")

    assert said("a" * 40, None) == said("a" * 40, "a" * 40) == ""
    assert said("b" * 40, "b" * 40) == f"at revision {'b' * 12}, which the name does not say"
    assert said("b" * 40, "b" * 40, 1).startswith("and was changed in memory (1 of its ")
    assert said("b" * 40, None).startswith("and is of another revision than the one on this machine, or was")
    assert said("b" * 40, "c" * 40).startswith("and is of another revision than"), "whose files are not here"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_same_numbers_in_another_precision_are_the_same_model(
    dtype: str,
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Loaded, they come in the precision of the student that was here."""
    half = KnowledgeDistillation(teacher, load("gpt2", dtype=getattr(torch, dtype)), make())
    assert f"model.student.dtype={dtype}" in half.command("rows")
    half.save_student(tmp_path / "half")
    whole = KnowledgeDistillation(teacher, load("gpt2"), make())
    assert whole.load_student(tmp_path / "half").dtype == torch.float32
    assert "dtype" not in whole.command("rows")
    pairs = zip(whole.student.parameters(), half.student.parameters(), strict=True)
    assert all(torch.equal(p, q.float()) for p, q in pairs)
    whole.save_student(tmp_path / "whole")
    assert half.load_student(tmp_path / "whole").dtype == getattr(torch, dtype)
    assert f"model.student.dtype={dtype}" in half.command("rows")
    half.free_student()
    assert half.load_student(tmp_path / "whole").dtype == torch.float32, "as it was saved"
    assert "does not say all" not in caplog.text


def test_what_is_cut_and_saved_has_a_command_that_names_it(
    teacher: PreTrainedModel, load: Load, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = load("gpt2")
    prune_layers(cut, [0])
    cut.save_pretrained(tmp_path / "cut")
    config = make()
    config.student_model_name = str(tmp_path / "cut")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    said = KnowledgeDistillation(teacher, again, config).command("rows")
    assert f"model.student.path={tmp_path / 'cut'}" in said
    assert "does not say all" not in caplog.text


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        (None, "DATA in the command stands for your rows: a folder that DatasetDict(train=…, "),
        ((), "does not hold all of train, validation and test"),
        (("train", "validation"), "does not hold all of train, validation and test"),
        (("train", "validation", "test"), ""),
    ],
)
def test_where_the_rows_come_from_is_said_beside_the_command(
    splits: tuple[str, ...] | None,
    told: str,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The runner sets aside from the training rows what a folder lacks, and trains on fewer."""
    if splits is None:
        said = make().command("kd")
    else:
        whole = DatasetDict(dict.fromkeys(splits, rows)) if splits else rows
        whole.save_to_disk(tmp_path / "rows")
        said = make().command("kd", tmp_path / "rows")
    assert said.count("data.path=") == 1
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


def short(config: DistillationConfig) -> dict[str, Any]:
    names = ("num_train_epochs", "per_device_train_batch_size", "warmup_steps", "max_length", "output_dir")
    return {name: getattr(config, name) for name in names}


def pairs(prompt: str) -> list[dict[str, str]]:
    """Rows whose prompts are in a column of that name."""
    return [{prompt: f"Where is the dog {n}?", "answer": "In the house."} for n in range(8)]


def test_how_prompts_were_written_is_told_and_goes_with_the_student(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its headings an answer is another: whoever asks the saved student asks as its training did."""
    monkeypatch.setattr(tokenizer, "chat_template", None)
    learns, saved = KnowledgeDistillation(teacher, student, make(), tokenizer), tmp_path / "saved"
    learns.train(pairs("question"))
    said = "train_dataset: Without a chat template, column question is written in the Alpaca form"
    assert said in caplog.text
    assert "data." not in caplog.text.partition(said)[2].partition("\n")[0], "keys of the runner"
    learns.save_student(saved)
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "## How to ask it" in card
    assert "### Instruction:\n{question}\n\n### Response:\n" in card
    asked = open_product(saved)
    assert asked.recorded_shape == Shape(Kind.PAIR, "question", "answer", headings=True)
    assert asked.shape.headings

    learns.load_student(saved)
    learns.save_student(tmp_path / "again")
    assert open_product(tmp_path / "again").recorded_shape == asked.recorded_shape

    caplog.clear()
    learns.train(pairs("prompt"))
    assert "Alpaca" not in caplog.text
    learns.save_student(saved)
    assert open_product(saved).recorded_shape == Shape(Kind.PAIR, "prompt", "answer")

    learns.train(rows)
    learns.save_student(saved)
    assert not (saved / "distillation_rows.json").exists(), "token ids do not say how their text was written"
    assert "How to ask" not in (saved / "README.md").read_text(encoding="utf-8")
    assert open_product(saved).recorded_shape is None
