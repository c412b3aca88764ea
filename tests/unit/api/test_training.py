"""Training through the library: the engine's own result, whatever form the call takes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict, load_from_disk
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil.api.base import _limit
from distil.engine.checkpoints import MANIFEST, _describe, _files
from llm_distil import (
    ArgumentError,
    BaseDistillation,
    DistillationConfig,
    GeneralizedKnowledgeDistillation,
    KnowledgeDistillation,
    ReverseKnowledgeDistillation,
    RunFailed,
    compute_perplexity,
)
from tests.guide.world import tokenised
from tests.training import distance

ROOT = Path(__file__).resolve().parent.parent.parent.parent
CLASSES = (KnowledgeDistillation, ReverseKnowledgeDistillation, GeneralizedKnowledgeDistillation)
Load = Callable[..., PreTrainedModel]
Make = Callable[..., DistillationConfig]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("main", [True, False])
def test_the_first_of_several_processes_alone_shows_its_steps(
    main: bool,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("distil.processes.ranks.is_main", lambda: main)
    monkeypatch.setattr("distil.system.progress.SOONEST", 0)
    KnowledgeDistillation(teacher, student, make()).train(rows)
    assert ("training: step" in capsys.readouterr().err) is main


@pytest.mark.parametrize("kind", CLASSES)
def test_it_trains_the_student_in_place_and_leaves_the_teacher_alone(
    kind: type[BaseDistillation],
    load: Load,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
) -> None:
    teacher = load("gpt2-medium")
    before, teacher_before = weights(student), weights(teacher)
    learns = kind(teacher, student, make())
    untouched = learns.evaluate(rows)
    output = learns.train(rows, rows)
    after = learns.evaluate(rows)
    assert output.global_step == 4
    assert learns.student is student
    assert not same(weights(student), before)
    assert same(weights(teacher), teacher_before)
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    assert not student.training
    assert student.config.use_cache
    assert after["kl_to_teacher"] < untouched["kl_to_teacher"]
    assert [entry["step"] for entry in learns.history if "train_loss" in entry] == [4]


def test_gkd_samples_the_students_own_text(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    gkd = GeneralizedKnowledgeDistillation(teacher, student, make(logging_steps=1))
    gkd.train(rows)
    assert all(entry["rollout_jsd_per_token"] > 0 for entry in gkd.history if "loss" in entry)
    assert sum("loss" in entry for entry in gkd.history) == 4


def test_every_order_of_arguments_is_understood(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = make()
    calls: list[Callable[[PreTrainedModel], KnowledgeDistillation]] = [
        lambda s: KnowledgeDistillation(teacher, s, config),
        lambda s: KnowledgeDistillation(config, teacher, s, tokenizer),
        lambda s: KnowledgeDistillation(teacher, s, config, tokenizer),
        lambda s: KnowledgeDistillation(
            config=config, student_model=s, teacher_model=teacher, tokenizer=tokenizer
        ),
    ]
    trained = []
    for call in calls:
        learns = call(load("gpt2"))
        assert learns.teacher is teacher
        assert learns.config is config
        learns.train(rows)
        trained.append(weights(learns.student))
    assert all(same(trained[0], other) for other in trained[1:])


def left_padded(rows: Dataset) -> Dataset:
    def turn(row: dict[str, Any]) -> dict[str, Any]:
        real = sum(row["attention_mask"])
        room = len(row["input_ids"]) - real
        return {
            "input_ids": row["input_ids"][:1] * room + row["input_ids"][:real],
            "attention_mask": [0] * room + [1] * real,
        }

    return rows.map(turn)


class Torch(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, rows: Dataset) -> None:
        self.rows = rows.with_format("torch")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {key: self.rows[index][key] for key in ("input_ids", "attention_mask")}


FORMS: dict[str, Callable[[Dataset], Any]] = {
    "padded on the left": left_padded,
    "labels of all real tokens": lambda rows: rows.map(
        lambda row: {
            "labels": [i if m else -100 for i, m in zip(row["input_ids"], row["attention_mask"], strict=True)]
        }
    ),
    "a stream": lambda rows: rows.to_iterable_dataset(),
    "a stream cut to its length": lambda rows: rows.to_iterable_dataset().take(len(rows)),
    "a torch data set": Torch,
    "torch tensors": lambda rows: rows.with_format("torch"),
    "a list": lambda rows: rows.to_list(),
    "a DatasetDict's split": lambda rows: DatasetDict(train=rows)["train"],
    "a generator": lambda rows: iter(rows.to_list()),
    "unpadded": lambda rows: [
        {"input_ids": row["input_ids"][: sum(row["attention_mask"])]} for row in rows.to_list()
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_data_set_does_not_matter(
    form: str, teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, expected: dict[str, Any]
) -> None:
    learns = KnowledgeDistillation(teacher, load("gpt2"), make())
    learns.train(FORMS[form](rows))
    assert same(weights(learns.student), expected)


@pytest.fixture(scope="module")
def expected(
    teacher: PreTrainedModel, load: Load, hub: Path, rows: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """The student of the plain rows."""
    config = DistillationConfig(
        "gpt2-medium",
        "gpt2",
        epochs=1,
        batch_size=4,
        warmup_steps=0,
        learning_rate=1e-3,
        max_length=96,
        output_dir=str(tmp_path_factory.mktemp("expected")),
    )
    learns = KnowledgeDistillation(teacher, load("gpt2"), config)
    learns.train(rows)
    return weights(learns.student)


def test_rows_of_text_are_read_where_a_tokenizer_is_known(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    texts = rows.select_columns(["text"])
    given = KnowledgeDistillation(teacher, load("gpt2"), make(), tokenizer)
    given.train(texts)
    found = KnowledgeDistillation(teacher, load("gpt2"), make())  # the student's folder holds one
    found.train(texts)
    assert same(weights(given.student), weights(found.student))
    gkd = GeneralizedKnowledgeDistillation(teacher, load("gpt2"), make(), tokenizer)
    assert gkd.train(texts).global_step == 4  # goes on from the first tokens of each text


def test_unscored_labels_are_not_scored(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    def mask_prompt(row: dict[str, Any]) -> dict[str, Any]:
        count = len(row["prompt_input_ids"])
        return {"labels": [-100] * count + row["input_ids"][count:]}

    learns = KnowledgeDistillation(teacher, student, make())
    masked = rows.map(mask_prompt)
    responses = sum(sum(row["attention_mask"]) - len(row["prompt_input_ids"]) for row in rows)
    everything = sum(sum(row["attention_mask"]) - 1 for row in rows)
    prompted = masked.remove_columns(["prompt_input_ids", "prompt_attention_mask"])
    assert learns.evaluate(masked)["eval_tokens"] == responses
    assert learns.evaluate(prompted) == learns.evaluate(masked)
    assert learns.evaluate(rows)["eval_tokens"] == everything
    gkd = GeneralizedKnowledgeDistillation(teacher, student, make())
    assert gkd.train(prompted).global_step == 4  # what is not scored is the prompt


def test_labels_say_alone_what_is_scored(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """A prompt column says where the student goes on by itself, whatever the labels score."""
    labelled = FORMS["labels of all real tokens"](rows)
    bare = labelled.remove_columns(["prompt_input_ids", "prompt_attention_mask"])
    learns = KnowledgeDistillation(teacher, student, make())
    scores = learns.evaluate(labelled)
    assert scores == learns.evaluate(bare) == learns.evaluate(rows)
    assert compute_perplexity(student, labelled, tokenizer) == compute_perplexity(student, bare, tokenizer)
    gkd = GeneralizedKnowledgeDistillation(teacher, student, make())
    assert gkd.train(labelled).global_step == 4


def test_prompts_that_are_padded_or_whole_rows_are_fine(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    def add_prompts(examples: dict[str, Any]) -> dict[str, Any]:
        examples["prompt_input_ids"] = [ids[:90] for ids in examples["input_ids"]]
        examples["prompt_attention_mask"] = [mask[:90] for mask in examples["attention_mask"]]
        return examples

    learns = GeneralizedKnowledgeDistillation(teacher, student, make(max_length=200))
    assert learns.train(rows.map(add_prompts, batched=True)).global_step == 4
    assert learns.history[-1]["train_loss"] > 0


def test_evaluate_is_what_a_loop_over_rows_gives(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    scores = KnowledgeDistillation(teacher, student, make()).evaluate(rows)
    nll, kl, agreed, tokens = 0.0, 0.0, 0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row["input_ids"][: sum(row["attention_mask"])]])
            ours, theirs = (
                model(ids).logits[0, :-1].double().log_softmax(-1) for model in (student, teacher)
            )
            nll -= float(ours.gather(-1, ids[0, 1:, None]).sum())
            kl += float((theirs.exp() * (theirs - ours)).sum())
            agreed += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            tokens += ids.shape[1] - 1
    assert scores["eval_tokens"] == tokens
    assert scores["eval_loss"] == pytest.approx(nll / tokens, rel=1e-5)
    assert scores["perplexity"] == pytest.approx(torch.tensor(nll / tokens).exp().item(), rel=1e-5)
    assert scores["kl_to_teacher"] == pytest.approx(kl / tokens, rel=1e-4)
    assert scores["top1_agreement"] == pytest.approx(agreed / tokens, abs=1e-9)


def test_evaluation_disturbs_nothing(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset, expected: dict[str, Any]
) -> None:
    learns = KnowledgeDistillation(teacher, student, make(eval_steps=1))
    before = torch.get_rng_state()
    learns.evaluate(rows)
    assert torch.equal(torch.get_rng_state(), before)
    learns.train(rows, rows.select(range(3)))
    assert same(weights(student), expected)
    assert sum("eval_loss" in entry for entry in learns.history) == 4


# ---- the user's own TrainingArguments


def test_own_training_arguments_are_used_and_left_as_they_are(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    own = TrainingArguments(
        output_dir=str(tmp_path / "own"),
        max_steps=3,
        per_device_train_batch_size=2,
        eval_strategy="steps",
        eval_steps=2,
        save_total_limit=1,
        report_to="tensorboard",
        logging_steps=1,
        disable_tqdm=True,
    )
    before = dict(vars(own))
    learns = KnowledgeDistillation(teacher, student, make())
    assert learns.train(rows, rows, training_args=own).global_step == 3
    assert vars(own) == before
    assert (tmp_path / "own" / "checkpoint-3").is_dir()
    assert list(tmp_path.rglob("events.out.tfevents*"))
    assert sum("loss" in entry for entry in learns.history) == 3


def test_a_stream_without_an_end_is_read_as_far_as_max_steps_say(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As all processes together see."""
    own = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=3, report_to=[], disable_tqdm=True
    )
    endless = itertools.cycle(rows.to_list())
    assert KnowledgeDistillation(teacher, student, make()).train(endless, None, own).global_step == 2
    assert _limit(endless, own) == 6
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    assert _limit(endless, own) == 12


# ---- checkpoints


def test_two_trainings_in_one_folder_do_not_meet(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, expected: dict[str, Any]
) -> None:
    config = make(learning_rate=1e-2)
    KnowledgeDistillation(teacher, load("gpt2"), config).train(rows)
    config.learning_rate = 1e-3
    second = KnowledgeDistillation(teacher, load("gpt2"), config)
    second.train(rows)
    (kept,) = Path(config.output_dir).glob("kd/checkpoints/checkpoint-*")
    stored = load_file(kept / "model.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in expected.items() if name in stored)
    assert same(weights(second.student), expected)


def test_resuming_is_exact_and_an_unfinished_training_is_set_aside(
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = make(save_steps=2, output_dir="~/output")
    KnowledgeDistillation(teacher, load("gpt2"), config).train(rows)
    folder = tmp_path / "output" / "kd" / "checkpoints"
    shutil.rmtree(folder / "checkpoint-4")  # as if it had been stopped after step 2
    resumed = KnowledgeDistillation(teacher, load("gpt2"), config)
    resumed.train(rows, resume_from_checkpoint=True)
    assert same(weights(resumed.student), expected)
    shutil.rmtree(folder / "checkpoint-4")
    with caplog.at_level(logging.WARNING):
        KnowledgeDistillation(teacher, load("gpt2"), config).train(rows)
    aside = folder / "unfinished-1" / "checkpoint-2"
    assert aside.is_dir()
    assert str(aside) in caplog.text
    again = KnowledgeDistillation(teacher, load("gpt2"), config)
    caplog.clear()
    again.train(rows, resume_from_checkpoint=f"~/{aside.relative_to(tmp_path)}")
    assert same(weights(again.student), expected)
    assert "otherwise" not in caplog.text
    assert "nothing was trained" not in caplog.text
    KnowledgeDistillation(teacher, load("gpt2"), config).train(
        rows.select(range(len(rows) - 1, -1, -1)), resume_from_checkpoint=True
    )
    assert re.search(rf"rows='{len(rows)} rows \(\w+\)' then, '{len(rows)} rows \(\w+\)' now", caplog.text)
    assert "is of step 4, the last of this training: nothing was trained" in caplog.text
    again.save_student("~/saved")
    again.load_student(tmp_path / "saved")
    assert same(weights(again.student), expected)
    nobody = "~nobody-of-that-name/saved"
    for call in (again.save_student, again.load_student):
        with pytest.raises(ArgumentError, match=f"={nobody}: there is no such home folder"):
            call(nobody)


def test_a_checkpoint_that_holds_code_is_named(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset
) -> None:
    config = make(save_steps=2)
    KnowledgeDistillation(teacher, load("gpt2"), config).train(rows)
    folder = Path(config.output_dir) / "kd" / "checkpoints"
    shutil.rmtree(folder / "checkpoint-4")
    newest = folder / "checkpoint-2"
    torch.save({"state": Path("/x")}, newest / "scheduler.pt")
    files = [_describe(file, newest) for file in _files(newest) if file.name != MANIFEST]
    (newest / MANIFEST).write_text(json.dumps({"files": files}), encoding="utf-8")
    with pytest.raises(RunFailed, match=r"scheduler\.pt holds more than numbers") as caught:
        KnowledgeDistillation(teacher, load("gpt2"), config).train(rows, resume_from_checkpoint=True)
    assert "run.resume" not in str(caught.value)


# ---- the same as the runner


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (KnowledgeDistillation, {}),
        (ReverseKnowledgeDistillation, {"temperature": 1.0, "kd_loss_weight": 0.8}),
        (GeneralizedKnowledgeDistillation, {"lambda_gkd": 0.4, "gradient_accumulation_steps": 2}),
        (KnowledgeDistillation, {"use_peft": True, "peft_type": "lora", "lora_r": 4}),
    ],
)
def test_the_printed_command_ends_in_the_same_student(
    kind: type[BaseDistillation],
    keys: dict[str, Any],
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(hub)
    parts = {"train": ("train", 24), "validation": ("validation", 8), "test": ("test", 8)}
    DatasetDict({name: tokenised(*part) for name, part in parts.items()}).save_to_disk(tmp_path / "rows")
    data = load_from_disk(str(tmp_path / "rows"))
    learns = kind(teacher, load("gpt2"), make(eval_steps=3, **keys))
    learns.train(data["train"], data["validation"])
    learns.save_student(tmp_path / "library")
    monkeypatch.chdir(ROOT)  # where the command is called by its script
    command = shlex.split(learns.command(tmp_path / "rows"))
    assert command[:2] == ["python", "run.py"]
    done = subprocess.run(
        [sys.executable, *command[1:], "eval.generation_rows=0", "name=runner"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (product,) = (tmp_path / "output" / "runner").glob("*/student")
    (theirs,) = product.glob("*.safetensors")
    ours = load_file(tmp_path / "library" / theirs.name)
    assert same(ours, load_file(theirs))
    before = load_file(hub / "gpt2" / "model.safetensors")
    assert not any(torch.equal(ours[name].float(), before[name].float()) for name in ours if name in before)
    if theirs.name.startswith("adapter"):
        told = [json.loads((f / "distil.json").read_text("utf-8")) for f in (product, tmp_path / "library")]
        assert told[0]["base_print"] == told[1]["base_print"]
        assert told[1].keys() - told[0].keys() == {"held", "method", "teacher"}, "what a run says elsewhere"
        assert told[0].keys() <= told[1].keys()
        taken = kind(teacher, load("gpt2"), make(**keys))
        taken.load_student(product)
        assert distance(taken.student, learns.student) == 0


def test_another_methods_checkpoint_is_not_gone_on_from(
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = tmp_path / "own"
    own = TrainingArguments(output_dir=str(root), max_steps=2, save_steps=1, report_to=[], disable_tqdm=True)
    KnowledgeDistillation(teacher, load("gpt2"), make()).train(rows, None, own)
    other = ReverseKnowledgeDistillation(teacher, load("gpt2"), make())
    before = weights(other.student)
    for resume in (True, root / "checkpoint-1"):
        with pytest.raises(ArgumentError) as caught:
            other.train(rows, None, own, resume_from_checkpoint=resume)
        folder = root / "checkpoint-2" if resume is True else resume
        for said in (str(folder), "method=kd", "method=revkd", "resume_from_checkpoint=None"):
            assert said in str(caught.value)
    assert same(weights(other.student), before)
    assert {path.name for path in root.iterdir()} >= {"checkpoint-1", "checkpoint-2"}
    caplog.clear()
    go_on = KnowledgeDistillation(teacher, load("gpt2"), make(temperature=4.0))
    faster = dataclasses.replace(own, learning_rate=0.5, gradient_accumulation_steps=2)
    go_on.train(rows, None, faster, resume_from_checkpoint=root / "checkpoint-1")
    for said in ("temperature=2.0 then, 4.0 now", "gradient_accumulation_steps=1 then, 2 now"):
        assert said in caplog.text
    assert f"learning_rate={own.learning_rate} then, 0.5 now" in caplog.text
    assert weights_in(root / "checkpoint-2", go_on.student)
    assert not weights_in(root / "finished-1" / "checkpoint-2", go_on.student)
    assert str(root / "finished-1" / "checkpoint-2") in caplog.text


def test_gone_on_from_an_earlier_step_no_later_checkpoint_is_taken_for_its_own(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    """Also where the best one is taken at the end: it is of this training, wherever that began."""
    root = tmp_path / "own"
    own = TrainingArguments(
        output_dir=str(root),
        max_steps=3,
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        learning_rate=1e-3,
        report_to=[],
        disable_tqdm=True,
    )
    KnowledgeDistillation(teacher, load("gpt2"), make()).train(rows, rows, own)
    hotter = KnowledgeDistillation(teacher, load("gpt2"), make(temperature=9.0))
    hotter.train(rows, rows, own, resume_from_checkpoint=root / "checkpoint-1")
    losses = {entry["step"]: entry["eval_loss"] for entry in hotter.history if "eval_loss" in entry}
    assert losses[3] < losses[2] < losses[1]
    assert weights_in(root / "checkpoint-3", hotter.student)
    assert {path.name for path in (root / "finished-1").iterdir()} == {"checkpoint-2", "checkpoint-3"}
    worst = dataclasses.replace(own, greater_is_better=True)
    first = KnowledgeDistillation(teacher, load("gpt2"), make())
    first.train(rows, rows, worst)
    assert weights_in(root / "checkpoint-1", first.student)
    root.rename(tmp_path / "kept")
    KnowledgeDistillation(teacher, load("gpt2"), make(temperature=9.0)).train(rows, rows, worst)
    again = KnowledgeDistillation(teacher, load("gpt2"), make())
    again.train(rows, rows, worst, resume_from_checkpoint=tmp_path / "kept" / "checkpoint-2")
    assert same(weights(again.student), weights(first.student))
    assert [path.name for path in root.glob("checkpoint-*")] == ["checkpoint-3"]
    shutil.rmtree(root / "checkpoint-3")
    again.train(rows, rows, worst, resume_from_checkpoint=tmp_path / "kept" / "checkpoint-2")
    assert same(weights(again.student), weights(first.student))
    more = dataclasses.replace(worst, max_steps=4)
    again.train(rows, rows, more, resume_from_checkpoint=True)
    assert same(weights(again.student), weights(first.student))


def weights_in(checkpoint: Path, student: PreTrainedModel) -> bool:
    stored = load_file(checkpoint / "model.safetensors")
    return all(torch.equal(student.state_dict()[name], tensor) for name, tensor in stored.items())


def test_a_checkpoint_of_a_student_made_otherwise_is_not_gone_on_from(
    teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset
) -> None:
    few = rows.select(range(4))
    KnowledgeDistillation(teacher, load("gpt2"), make()).train(few)
    adapter = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True))
    with pytest.raises(ArgumentError, match=r"checkpoint-1 is of a whole student.*Give use_peft=False"):
        adapter.train(few, resume_from_checkpoint=True)
    adapter.train(few)
    with pytest.raises(ArgumentError, match=r"checkpoint-1 is of an adapter.*Give use_peft=True"):
        KnowledgeDistillation(teacher, load("gpt2"), make()).train(few, resume_from_checkpoint=True)
    wider = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True, lora_r=4))
    with pytest.raises(RunFailed, match="it holds other parameters than those trained here"):
        wider.train(few, resume_from_checkpoint=True)
