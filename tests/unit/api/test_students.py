"""Students saved, taken up again, adapted, freed; and what cannot be distilled."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    TrainingArguments,
)

from distil.cli import main
from distil.types import InputError
from llm_distil import (
    ArgumentError,
    DistillationConfig,
    GeneralizedKnowledgeDistillation,
    KnowledgeDistillation,
    RunFailed,
    compute_perplexity,
)
from tests.conftest import build_gpt2, build_llama
from tests.training import distance

Load = Callable[..., PreTrainedModel]
Make = Callable[..., DistillationConfig]
ADAPTED = ("lora", "dora", "prefix", "prompt", "ptuning", "ia3", "qlora")


def refused(call: Callable[[], object]) -> str:
    """The message with which ``call`` is refused."""
    with pytest.raises(ValueError) as caught:
        call()
    assert isinstance(caught.value, ArgumentError)
    assert isinstance(caught.value, InputError)
    return str(caught.value)


# ---- saved and taken up again


def test_a_saved_student_is_a_plain_model_folder(
    teacher: PreTrainedModel, student: PreTrainedModel, load: Load, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    asked = make(temperature=1.5)
    config = replace(asked)
    learns = KnowledgeDistillation(teacher, student, asked)
    learns.train(rows)
    asked.temperature = 4.0
    assert " method.temperature=1.5 " in learns.command(), "what trained it, whatever becomes of the config"
    learns.save_student(tmp_path / "saved")
    assert distance(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), student) == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("a b")["input_ids"]
    assert DistillationConfig.load(tmp_path / "saved" / "distillation_config.json") == config
    assert "method=kd data=hf" in (tmp_path / "saved" / "README.md").read_text("utf-8")
    other = KnowledgeDistillation(teacher, load("gpt2"), config)
    assert other.load_student(str(tmp_path / "saved")) is other.student
    assert other.evaluate(rows) == learns.evaluate(rows)
    assert other.train(rows).global_step == 4


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text("utf-8")


def test_the_card_says_how_a_product_of_the_library_was_made(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    """No run, no results.json: the config beside it, and the command where one says the same."""
    learns = KnowledgeDistillation(teacher, student, make())
    learns.save_student(tmp_path / "untouched")
    assert "Not trained by distil-runner here" in card_of(tmp_path / "untouched")
    learns.train(rows)
    learns.save_student(tmp_path / "once")
    once = card_of(tmp_path / "once")
    assert f"\n{learns.command()}\n" in once
    assert "KnowledgeDistillation(teacher, student, config, tokenizer).train(train_dataset)" in once
    assert "results.json" not in once
    for block in re.findall(r"^```python\n(.*?)^```", once, re.MULTILINE | re.DOTALL):
        compile(block, "card", "exec")
    learns.train(rows)
    learns.save_student(tmp_path / "twice")
    assert "No command line says the same: it went on from an earlier training" in card_of(tmp_path / "twice")
    learns.load_student(tmp_path / "once")
    learns.train(rows, training_args=TrainingArguments(output_dir=str(tmp_path / "own"), max_steps=1))
    learns.save_student(tmp_path / "own")
    assert "TrainingArguments were the caller's own" in card_of(tmp_path / "own")
    assert "method=kd data=" not in card_of(tmp_path / "own")
    learns.load_student(tmp_path / "once")
    learns.save_student(tmp_path / "copy")
    assert f"it is what was loaded from {tmp_path / 'once'}" in card_of(tmp_path / "copy")


def test_a_folder_holds_the_last_student_alone(
    teacher: PreTrainedModel, load: Load, make: Make, tmp_path: Path
) -> None:
    """An adapter in the place of a whole model, and back: nothing of the other is read."""
    whole = KnowledgeDistillation(teacher, load("gpt2"), make())
    adapter = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True))
    folder = tmp_path / "saved"
    whole.save_student(folder)
    adapter.save_student(folder)
    assert not (folder / "model.safetensors").exists()
    assert not (folder / "config.json").exists()
    whole.save_student(folder)
    assert not [
        path.name for path in folder.iterdir() if "adapter" in path.name or path.name == "distil.json"
    ]
    adapter.load_student(folder)
    assert "holds the model that this adapter stands on" in refused(lambda: adapter.save_student(folder))
    assert (folder / "model.safetensors").exists()


def test_the_command_starts_where_the_student_did(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    """A student that was loaded is where a training starts, whatever the config calls the first one."""
    learns = KnowledgeDistillation(teacher, student, make())
    first = f" model.student.path={learns.config.student_model_name} "
    learns.train(rows)
    learns.save_student(tmp_path / "saved")
    learns.load_student(tmp_path / "saved")
    assert first in learns.command(), "how the student in hand was made"
    learns.train(rows)
    assert f" model.student.path={tmp_path / 'saved'} " in learns.command()
    assert learns.experiment().model.student.path == str(tmp_path / "saved")


def test_a_whole_model_becomes_the_base_of_an_adapter_and_says_so(
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = KnowledgeDistillation(teacher, load("gpt2"), make())
    whole.train(rows)
    whole.save_student(tmp_path / "whole")
    learns = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True, learning_rate=1e-2))
    learns.load_student(tmp_path / "whole")
    assert f"{tmp_path / 'whole'} is a whole model: it is the base now" in caplog.text
    assert learns.evaluate(rows) == pytest.approx(whole.evaluate(rows)), "a new adapter changes nothing yet"
    assert f" model.student.path={tmp_path / 'whole'} " in learns.command()
    learns.train(rows)
    learns.save_student(tmp_path / "adapter")
    assert f"An adapter (lora) on {tmp_path / 'whole'}:" in card_of(tmp_path / "adapter")
    elsewhere = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True))
    assert "whose weights are others" in refused(lambda: elsewhere.load_student(tmp_path / "adapter"))
    learns.load_student(tmp_path / "adapter")
    learns.train(rows)
    words = shlex.split(learns.command())
    assert f"model.student.path={tmp_path / 'whole'}" in words
    assert f"model.student.adapter={tmp_path / 'adapter'}" in words


def test_fields_that_nothing_reads_are_told_when_training_begins(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = replace(make(), lora_r=4)
    KnowledgeDistillation(teacher, student, config).train(rows)
    assert "use_peft=False: all of the student is trained, so nothing reads lora_r=4." in caplog.text
    caplog.clear()
    prefix = make(use_peft=True, peft_type="prefix", num_virtual_tokens=2, lora_r=4)
    KnowledgeDistillation(teacher, load("gpt2"), prefix).train(rows)
    assert "peft_type=prefix is trained, so nothing reads lora_r=4." in caplog.text


def test_calls_that_do_not_fit_name_the_nearest(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    learns: Any = KnowledgeDistillation(teacher, student, make())
    for kind in (KnowledgeDistillation, GeneralizedKnowledgeDistillation):
        wrong: Any = kind
        said = refused(lambda wrong=wrong: wrong(teacher=teacher, student_model=student, config=make()))
        assert said == f"{kind.__name__} takes no 'teacher'. Did you mean teacher_model?"
        assert "lacks config" in refused(lambda wrong=wrong: wrong(teacher, student))
    for call, words in (
        (lambda: learns.train(rows, args=None), "train takes no 'args'"),
        (lambda: learns.train(rows, eval_datasets=rows), "Did you mean eval_dataset?"),
        (lambda: learns.train(dataset=rows), "Did you mean train_dataset?"),
        (
            lambda: learns.__class__(make(), teacher_model=teacher, student_model=student),
            "where it comes first, both models follow without their names",
        ),
        (lambda: learns.command(rows), "data is a Dataset: a command line names a folder"),
        (lambda: learns.train(), "train lacks train_dataset"),
        (lambda: learns.train(rows, rows, None, True), "train: too many positional arguments"),
        (lambda: learns.evaluate(rows, batch_size=1), "evaluate takes no 'batch_size'"),
        (lambda: learns.save_student(folder="x"), "save_student takes no 'folder'"),
        (lambda: learns.save_student(None), "output_dir is a NoneType: give a path"),
        (lambda: learns.save_student(""), "output_dir is an empty text: give a path"),
        (lambda: learns.load_student(3), "model_path is a int: give a path"),
        (lambda: learns.train(rows, report_to="wandb"), "It goes to TrainingArguments(report_to=…)"),
        (
            lambda: learns.__class__(teacher, student, make(), temperature=1.0),
            "It goes to DistillationConfig(…, temperature=…)",
        ),
    ):
        assert words in refused(call)


def test_models_in_the_other_order_are_told(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    KnowledgeDistillation(teacher, student, make())
    assert "the other way round" not in caplog.text
    KnowledgeDistillation(student, teacher, make())
    assert "were they given the other way round?" in caplog.text


def test_an_evaluation_that_never_comes_is_told(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    KnowledgeDistillation(teacher, student, make(eval_steps=2)).train(rows, rows)
    assert "eval_steps" not in caplog.text
    KnowledgeDistillation(teacher, student, make()).train(rows, rows)
    assert "eval_steps=500, but the run has 4 steps: eval_dataset is not looked at" in caplog.text


@pytest.mark.parametrize("kind", ADAPTED)
def test_an_adapter_is_trained_saved_alone_and_taken_up_again(
    kind: str, teacher: PreTrainedModel, load: Load, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {}
    if kind == "qlora":
        keys["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    base = load("gpt2", **keys)
    frozen = {name: p.clone() for name, p in base.named_parameters()}
    config = make(use_peft=True, peft_type=kind, learning_rate=1e-2, num_virtual_tokens=4)
    learns = KnowledgeDistillation(teacher, base, config)
    untouched = learns.evaluate(rows)["eval_loss"]
    learns.train(rows)
    trained = learns.evaluate(rows)
    assert trained["eval_loss"] < untouched
    inside: Any = learns.student
    kept = {
        name.replace(".base_layer", ""): p
        for name, p in inside.get_base_model().named_parameters()
        if "lora_" not in name and "ia3_" not in name
    }
    assert all(torch.equal(kept[name], p) for name, p in frozen.items())

    learns.save_student(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    assert (tmp_path / "saved" / "adapter_model.safetensors").stat().st_size < 100_000
    other = KnowledgeDistillation(teacher, load("gpt2", **keys), config)
    other.load_student(tmp_path / "saved")
    assert other.evaluate(rows) == pytest.approx(trained, rel=1e-6)
    if kind == "ptuning":  # its network is not saved
        assert "not trained any further" in refused(lambda: other.train(rows))
    else:
        assert other.train(rows).global_step == 4


def test_an_adapter_starts_where_the_seed_says(teacher: PreTrainedModel, load: Load, make: Make) -> None:
    config = make(use_peft=True)
    torch.manual_seed(1)
    first = KnowledgeDistillation(teacher, load("gpt2"), config).student
    torch.manual_seed(2)
    again = KnowledgeDistillation(teacher, load("gpt2"), config).student
    assert distance(first, again) == 0
    other = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True, seed=7)).student
    assert distance(first, other) > 0


def test_the_lora_of_the_guide_trains_its_share(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make
) -> None:
    config = make(use_peft=True, lora_r=4, lora_target_modules=["q_proj", "v_proj"], lora_bias="none")
    learns: Any = KnowledgeDistillation(teacher, student, config).student
    trained, _ = learns.get_nb_trainable_parameters()
    text = learns.get_base_model().config
    heads = text.num_attention_heads
    of_values = text.num_key_value_heads * text.hidden_size // heads
    per_layer = 4 * (text.hidden_size + text.hidden_size) + 4 * (text.hidden_size + of_values)
    assert trained == text.num_hidden_layers * per_layer


def test_a_freed_student_says_so_until_another_comes(
    teacher: PreTrainedModel, student: PreTrainedModel, load: Load, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    learns.save_student(tmp_path / "saved")
    learns.free_student()
    for call in (
        lambda: learns.train(rows),
        lambda: learns.evaluate(rows),
        lambda: learns.save_student(tmp_path / "x"),
    ):
        said = refused(call)
        assert "the student was freed" in said
        assert "load_student" in said
    learns.load_student(tmp_path / "saved")
    assert learns.train(rows).global_step == 4
    moved = KnowledgeDistillation(teacher, load("gpt2"), make())
    moved.student.to("meta")
    assert "the student was freed" in refused(lambda: moved.train(rows))


def test_folders_that_hold_no_student_are_refused(
    teacher: PreTrainedModel, student: PreTrainedModel, load: Load, make: Make, tmp_path: Path
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    assert "no such folder" in refused(lambda: learns.load_student(tmp_path / "absent"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    assert "it holds a.txt" in refused(lambda: learns.load_student(tmp_path / "notes"))
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
              ).save_pretrained(tmp_path / "bert")  # fmt: skip
    assert "save_student" in refused(lambda: learns.load_student(tmp_path / "bert"))
    assert learns.student is student

    adapter = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True, lora_r=4))
    adapter.save_student(tmp_path / "adapter")
    assert "use_peft=True" in refused(lambda: learns.load_student(tmp_path / "adapter"))
    wider = KnowledgeDistillation(teacher, load("gpt2"), make(use_peft=True, lora_r=8))
    assert "Give lora_r=4" in refused(lambda: wider.load_student(tmp_path / "adapter"))
    changed = load("gpt2")
    with torch.no_grad():
        changed.get_input_embeddings().weight.add_(1)
    elsewhere = KnowledgeDistillation(teacher, changed, make(use_peft=True, lora_r=4))
    assert "whose weights are others" in refused(lambda: elsewhere.load_student(tmp_path / "adapter"))
    (tmp_path / "file").touch()
    assert "is a file" in refused(lambda: learns.save_student(tmp_path / "file"))
    assert "output_dir=/proc/x cannot be written to (No such" in refused(
        lambda: learns.save_student("/proc/x")
    )


# ---- what cannot be distilled


def test_models_that_are_none_are_refused(
    teacher: PreTrainedModel, student: PreTrainedModel, load: Load, make: Make
) -> None:
    config = make()
    said = refused(lambda: KnowledgeDistillation(teacher, "gpt2", config))  # type: ignore[call-overload]
    assert (
        said
        == "student_model is the name 'gpt2', not a model. Give AutoModelForCausalLM.from_pretrained('gpt2')."
    )
    bert = BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    t5 = T5ForConditionalGeneration(
        T5Config(d_model=8, num_layers=1, num_heads=1, d_kv=4, d_ff=8, vocab_size=32)
    )
    for model in (bert, t5, student.model):
        for call in (
            lambda model=model: KnowledgeDistillation(model, student, config),
            lambda model=model: KnowledgeDistillation(teacher, model, config),
        ):
            said = refused(call)
            assert type(model).__name__ in said
            assert "AutoModelForCausalLM" in said
    assert "not a model of transformers" in refused(
        lambda: KnowledgeDistillation(torch.nn.Linear(2, 2), student, config)  # type: ignore[call-overload]
    )
    assert "Load it twice" in refused(lambda: KnowledgeDistillation(teacher, teacher, config))
    frozen = load("gpt2").requires_grad_(False)
    assert "no parameter that takes a gradient" in refused(
        lambda: KnowledgeDistillation(teacher, frozen, config)
    )


def test_other_tokenizers_are_refused(
    teacher: PreTrainedModel, load: Load, make: Make, hub: Path, tmp_path: Path
) -> None:
    student = load("gpt2")
    student.save_pretrained(tmp_path / "other")
    content = json.loads((hub / "gpt2" / "tokenizer.json").read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    a, b = sorted(vocabulary, key=vocabulary.get)[300:302]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "other")
    assert "different tokenizers" in refused(lambda: KnowledgeDistillation(teacher, other, make()))


def test_embeddings_of_two_sizes_share_the_smaller(make: Make) -> None:
    rows = [{"input_ids": [3, 4, 5, 6, 7]}, {"input_ids": [8, 9, 10]}] * 4
    learns = KnowledgeDistillation(build_llama(64, seed=1), build_gpt2(70, seed=2), make())
    learns.train(rows)
    assert learns.evaluate(rows)["kl_to_teacher"] > 0
    unknown = [{"input_ids": [3, 66, 5]}]
    assert "input_ids holds 66" in refused(lambda: learns.train(unknown))


def test_configs_that_are_none_are_refused(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make
) -> None:
    said = refused(lambda: KnowledgeDistillation(teacher, student, make().to_dict()))  # type: ignore[call-overload]
    assert said == "config is a dict: give DistillationConfig.from_dict(config)."
    assert "give DistillationConfig(…)" in refused(lambda: KnowledgeDistillation(teacher, student, None))  # type: ignore[call-overload]


def test_adapters_that_do_not_go_together_are_refused(
    teacher: PreTrainedModel, student: PreTrainedModel, load: Load, make: Make
) -> None:
    assert "Load the student in 4 bits first" in refused(
        lambda: KnowledgeDistillation(teacher, student, make(use_peft=True, peft_type="qlora"))
    )
    four = load("gpt2", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    assert "in 4 bits" in refused(lambda: KnowledgeDistillation(teacher, four, make()))
    made = KnowledgeDistillation(teacher, student, make(use_peft=True))
    assert "carries an adapter already" in refused(
        lambda: KnowledgeDistillation(teacher, made.student, make(use_peft=True))
    )
    assert "lora_target_modules" in refused(
        lambda: KnowledgeDistillation(
            teacher, load("gpt2"), make(use_peft=True, lora_target_modules=["c_attn"])
        )
    )


def test_the_layers_of_an_earlier_adapter_are_seen(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    """PEFT works on the model itself: saved as a whole one it would load with weights missing."""
    made = KnowledgeDistillation(teacher, student, make(use_peft=True))
    for kind in (KnowledgeDistillation, GeneralizedKnowledgeDistillation):
        said = refused(lambda kind=kind: kind(teacher, student, make()))  # type: ignore[misc]
        assert said.startswith("student_model holds an adapter's layers")
    made.save_student(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "load_student(folder)" in refused(lambda: KnowledgeDistillation(teacher, loaded, make()))
    KnowledgeDistillation(teacher, made.student, make()).train(rows)  # PEFT's own wrapper is one


def test_weights_that_both_models_hold_are_refused(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make
) -> None:
    assert "are one object" in refused(lambda: KnowledgeDistillation(teacher, teacher, make()))
    student.get_input_embeddings().weight = torch.nn.Parameter(teacher.get_input_embeddings().weight.data)  # type: ignore[union-attr, assignment]
    assert "share " in refused(lambda: KnowledgeDistillation(teacher, student, make()))


def test_a_missing_text_of_pandas_is_left_out(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    row = {"prompt": "a b", "response": "c a"}
    alone = learns.evaluate([row])
    for missing in (None, float("nan")):
        assert learns.evaluate([row, {"prompt": "b", "response": missing}]) == alone
        assert "1 of 2 rows are left out: empty response (1)" in caplog.text
        caplog.clear()


def test_rows_beyond_what_a_model_was_made_for_are_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A rotary model goes on, badly; a table of positions ends."""
    models = build_llama(seed=1), build_llama(seed=2)
    limit = models[0].config.max_position_embeddings
    learns = KnowledgeDistillation(*models, make(max_length=4 * limit))
    learns.evaluate([{"input_ids": [3] * limit}])
    assert "were made for" not in caplog.text
    learns.evaluate([{"input_ids": [3] * (limit + 1)}])
    assert f"a row of {limit + 1} tokens, but the models were made for {limit}" in caplog.text


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "a file": ("own.csv", 'datasets.load_dataset("csv", data_files="own.csv", split="train")'),
    "a path": (Path("a/b.jsonl"), 'datasets.load_dataset("json", data_files="a/b.jsonl", split="train")'),
    "a dict of lists": ({"input_ids": [[1, 2]]}, "Dataset.from_dict("),
    "one row": ({"prompt": "a", "response": "b"}, "is one row: give a list"),
    "one batch": ({"input_ids": torch.tensor([[1, 2]])}, "is one batch, as a tokenizer returns it"),
    "texts": (["a b c"], '{"text": …}'),
    "messages in two columns": ([{"prompt": [{"role": "user"}], "response": "a"}], "one column, messages"),
    "a frame": (pandas.DataFrame({"text": ["a b c"]}), "Dataset.from_pandas("),
    "other names": ([{"ask": "a", "say": "b"}], 'rows = [{"prompt": row["ask"], "response": row["say"]}'),
    "names that are like ours": (
        [{"n": 1, "my answer": "b", "my question": "a"}],
        'rename_columns({"my question": "prompt", "my answer": "response"})',
    ),
    "nothing": (None, "is a NoneType: give a data set"),
    "a name": ("dolly", "is 'dolly': give a data set"),
    "all splits, plain": (
        {"test": [{"text": "a"}], "train": [{"text": "b"}]},
        "dict of splits (test, train): give one, ",
    ),
    "all splits": (DatasetDict(a=Dataset.from_list([{"input_ids": [1]}])), "DatasetDict of splits (a)"),
    "empty": (Dataset.from_dict({"input_ids": []}), "is empty"),
    "an empty list": ([], "is empty"),
    "no usable column": ([{"foo": 1}], "Its columns: foo. Call them `prompt` and `response`"),
    "labels too short": ([{"input_ids": [1, 2, 3], "labels": [1]}], "labels has 1 entries, input_ids 3"),
    "a label that is none": ([{"input_ids": [1, 2, 3], "labels": [1, -1, 3]}], "row 0: labels holds -1"),
    "a label beyond the models": ([{"input_ids": [1, 2], "labels": [1, 5000]}], "labels holds 5000"),
    "mask too long": ([{"input_ids": [1, 2], "attention_mask": [1, 1, 1]}], "attention_mask has 3 entries"),
    "ids that are text": ([{"input_ids": ["a", "b"]}], "not a list of whole numbers"),
    "one token": ([{"input_ids": [1]}], "no row has a token to learn from"),
    "nothing scored": ([{"input_ids": [1, 2], "labels": [-100, -100]}], "no scored token (1)"),
    "rows that are lists": ([[1, 2, 3]], "rows of type list"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_data_sets_are_named(
    case: str, teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    dataset, said = BAD_ROWS[case]
    learns = KnowledgeDistillation(teacher, student, make())
    if dataset is not None:
        assert said in refused(lambda: learns.train(rows, dataset))
    message = refused(lambda: learns.train(dataset))
    assert said in message
    assert message.startswith("train_dataset")


def test_text_without_a_tokenizer_is_refused(make: Make) -> None:
    learns = KnowledgeDistillation(build_llama(seed=1), build_llama(seed=2), DistillationConfig("a", "b"))
    assert "holds text (columns: text), no tokens" in refused(lambda: learns.train([{"text": "a b c"}]))


def test_gkd_without_prompts_shows_the_fix(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    bare = rows.remove_columns(["prompt_input_ids", "prompt_attention_mask", "text"])
    learns = GeneralizedKnowledgeDistillation(teacher, student, make())
    said = refused(lambda: learns.train(bare))
    assert said.startswith("train_dataset has no column prompt_input_ids")
    names: dict[str, Any] = {"dataset": bare}
    lines = said.splitlines()[1:]
    fix = "\n".join(line[4:] for line in lines if line.startswith("    "))
    exec(fix, names)
    assert learns.train(names["dataset"]).global_step == 4
    off_policy = GeneralizedKnowledgeDistillation(teacher, student, make(lambda_gkd=1.0))
    assert off_policy.train(bare).global_step == 4
    padding = bare.map(lambda row: {"prompt_input_ids": [0, 0], "prompt_attention_mask": [0, 0]})
    assert "row 0: prompt_input_ids holds no real token" in refused(lambda: learns.train(padding))


def test_arguments_that_cannot_be_followed_are_refused(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset, tmp_path: Path
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    assert "give transformers.TrainingArguments" in refused(lambda: learns.train(rows, training_args={}))  # type: ignore[arg-type]
    for keys, said in (
        ({"eval_strategy": "epoch"}, "without eval_dataset"),
        ({"auto_find_batch_size": True}, "gradient_accumulation_steps"),
        ({"label_smoothing_factor": 0.1}, "the loss is the method's own"),
    ):
        own = TrainingArguments(output_dir=str(tmp_path), **keys)
        assert said in refused(lambda own=own: learns.train(rows, training_args=own))
    for best in ("eval_kl_to_teacher", "perplexity"):  # its own guess of the direction is wrong
        own = TrainingArguments(output_dir=str(tmp_path), eval_strategy="epoch", metric_for_best_model=best)
        assert "greater_is_better=False" in refused(lambda own=own: learns.train(rows, rows, own))
    assert "holds no whole checkpoint" in refused(lambda: learns.train(rows, resume_from_checkpoint=True))
    assert "no such folder" in refused(lambda: learns.train(rows, resume_from_checkpoint=tmp_path / "x"))
    learns.config.learning_rate = -1.0
    assert "learning_rate must be above 0, got -1.0" in refused(lambda: learns.train(rows))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_fp16_without_a_gpu_is_refused(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, rows: Dataset
) -> None:
    learns = KnowledgeDistillation(teacher, student, make(fp16=True))
    assert "set fp16=False" in refused(lambda: learns.train(rows))


def test_rows_beyond_a_table_of_positions_are_refused(make: Make) -> None:
    learns = KnowledgeDistillation(
        build_llama(seed=1), build_gpt2(seed=2, n_positions=8), make(max_length=96)
    )
    assert "Give max_length=8" in refused(lambda: learns.train([{"input_ids": list(range(3, 20))}]))


def test_text_prompts_start_from_a_text(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = make(
        use_peft=True,
        peft_type="prompt",
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="Tell me a story",
        num_virtual_tokens=3,
    )
    embedding = student.get_input_embeddings().weight.clone()
    wrapped: Any = KnowledgeDistillation(
        teacher, student, config
    ).student  # its tokenizer is beside the model
    ids = tokenizer("Tell me a story", add_special_tokens=False)["input_ids"][:3]
    assert torch.equal(wrapped.prompt_encoder[wrapped.active_adapter].embedding.weight, embedding[ids])


# ---- merged


@pytest.mark.parametrize(
    ("kind", "bits"), [("lora", None), ("dora", None), ("ia3", None), ("qlora", 4), ("lora", 8)]
)
def test_a_saved_adapter_is_merged_by_the_command_into_what_peft_says(
    kind: str,
    bits: int | None,
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
) -> None:
    """`distil merge FOLDER`, and the three lines of PEFT: one model."""
    keys: dict[str, Any] = {}
    if bits is not None:
        how: Any = {"load_in_4bit": True} if bits == 4 else {"load_in_8bit": True}
        keys["quantization_config"] = BitsAndBytesConfig(**how)
    config = make(use_peft=True, peft_type=kind, learning_rate=1e-2)
    learns: Any = KnowledgeDistillation(teacher, load("gpt2", **keys), config)
    learns.train(rows)
    learns.save_student(tmp_path / "adapter")
    assert main(["merge", str(tmp_path / "adapter"), "--output", str(tmp_path / "merged")]) == 0

    base: Any = load("gpt2", **keys)
    if bits is not None:
        base = base.dequantize()
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = torch.tensor([rows[0]["input_ids"][:32]])
    with torch.no_grad():
        wanted, untouched = plain(ids).logits, load("gpt2")(ids).logits
        assert torch.allclose(merged(ids).logits, wanted, atol=1e-4)
        assert (wanted - untouched).abs().max() > 1e-2, "training moved it, or nothing was shown"
    card = card_of(tmp_path / "merged")
    assert f"kd student of {config.teacher_model_name}" in card
    assert f"distil merge {tmp_path / 'adapter'} --output {tmp_path / 'merged'}" in card
    assert "distil merge FOLDER" in card_of(tmp_path / "adapter")


def test_what_the_library_saved_and_cannot_be_merged_says_why(
    teacher: PreTrainedModel, load: Load, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(folder: str, *more: str) -> str:
        capsys.readouterr()
        assert main(["merge", str(tmp_path / folder), "--output", str(tmp_path / "out"), *more]) == 2
        return capsys.readouterr().err

    KnowledgeDistillation(teacher, load("gpt2"), make()).save_student(tmp_path / "whole")
    assert "plain model already" in said("whole")
    prefix = make(use_peft=True, peft_type="prefix", num_virtual_tokens=4)
    KnowledgeDistillation(teacher, load("gpt2"), prefix).save_student(tmp_path / "prefix")
    assert "nothing to merge" in said("prefix")
    assert main(["merge", str(tmp_path / "prefix"), "--output", str(tmp_path / "base"), "--base-only"]) == 0
    assert distance(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), load("gpt2")) == 0
    (tmp_path / "prefix" / "distil.json").write_text("{}", encoding="utf-8")
    assert "distil.json is damaged" in said("prefix")
    (tmp_path / "prefix" / "distil.json").unlink()
    assert "PeftModel.from_pretrained(base, FOLDER).merge_and_unload()" in said("prefix")
    assert "no such folder" in said("absent")


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_what_the_library_saved_answers_and_is_evaluated_by_the_command(
    kind: str,
    teacher: PreTrainedModel,
    load: Load,
    make: Make,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The answer of ``generate()`` on what transformers and PEFT load; the perplexity of the library, rows
    cut where the config cuts them."""
    keys: dict[str, Any] = {} if kind == "none" else {"use_peft": True, "peft_type": kind}
    learns = KnowledgeDistillation(teacher, load("gpt2"), make(**keys), tokenizer)
    learns.train(rows)
    folder = tmp_path / "saved"
    learns.save_student(folder)
    model: Any = load("gpt2") if keys else AutoModelForCausalLM.from_pretrained(folder)
    model = PeftModel.from_pretrained(model, folder) if keys else model
    prompt = "Describe a shy brown parrot on the island.\n"
    inputs = tokenizer(prompt, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    capsys.readouterr()
    assert main(["generate", str(folder), "--prompt", prompt, "--max-new-tokens", "8"]) == 0
    wanted = tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert capsys.readouterr().out.strip() == wanted.strip()

    texts = [{"prompt": f"Say w{i}", "response": f"The island {i} is far. " * 6 * i} for i in range(1, 7)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    evaluated = tmp_path / "evaluated.json"
    command = ["evaluate", str(folder), "--generation-rows", "2"]
    assert main([*command, "--data", str(tmp_path / "texts.jsonl"), "--json", str(evaluated)]) == 0
    scores = json.loads(evaluated.read_text(encoding="utf-8"))
    assert scores["teacher"] is None
    said = learns.evaluate(Dataset.from_list(texts))["perplexity"]
    assert scores["student"]["perplexity"] == pytest.approx(said, rel=1e-4)
    assert "max_length=96" in capsys.readouterr().out

    config = folder / "distillation_config.json"
    whole = config.read_bytes()
    config.write_text("{}", encoding="utf-8")
    assert main(["generate", str(folder), "--prompt", prompt]) == 2
    assert f"{config} is damaged" in capsys.readouterr().err
    config.unlink()  # then a whole model is one of transformers', an adapter still the library's
    assert main(["generate", str(folder), "--prompt", prompt]) == (0 if keys else 2)
    config.write_bytes(whole)

    capsys.readouterr()
    assert main(command) == 2
    assert "give --data FILE" in capsys.readouterr().err
    assert main(["generate", str(folder), "--prompt", prompt, "--teacher"]) == 2
    assert "the library saved no teacher" in capsys.readouterr().err
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert main(["generate", str(folder), "--prompt", prompt]) == 2
    assert "tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [KnowledgeDistillation, GeneralizedKnowledgeDistillation])
@pytest.mark.parametrize("role", ["teacher_model", "student_model"])
def test_weights_that_are_no_numbers_are_named(
    role: str,
    kind: type[KnowledgeDistillation] | type[GeneralizedKnowledgeDistillation],
    load: Load,
    make: Make,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    models = {"teacher_model": load("gpt2-medium"), "student_model": load("gpt2")}
    with torch.no_grad():
        models[role].get_output_embeddings().weight[3] = float("nan")
    learns = kind(models["teacher_model"], models["student_model"], make(), tokenizer)
    said = rf"The weights of {role} hold nan or inf \(.*weight\): load it again"
    with pytest.raises(RunFailed, match=rf"The loss of step 1 is nan.* {said}"):
        learns.train(rows)
    learns.evaluate(rows)
    assert re.search(rf"kl_to_teacher=nan\. {said}", caplog.text)
    caplog.clear()
    compute_perplexity(models[role], rows, tokenizer)
    assert "The weights of model hold nan or inf" in caplog.text


def test_a_folder_that_holds_no_student_says_what_it_is(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make, hub: Path, tmp_path: Path
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    shutil.copytree(hub / "gpt2", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"model_path={weights} is a file: give the folder" in refused(lambda: learns.load_student(weights))
    said = refused(lambda: learns.load_student(weights.parent))
    assert "SafetensorError" in said
    assert said.endswith(". Give a folder that save_student wrote.")
    assert "holds no student" in refused(lambda: learns.load_student(tmp_path))
