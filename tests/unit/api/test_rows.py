"""Data sets as they come: padded without a mask, batched, streamed, longer than ``max_length``."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil.api.padding import without_padding
from distil.api.rows import TokenIds, raw_rows, read_rows
from distil.types import InputError
from llm_distil import ArgumentError, DistillationConfig, KnowledgeDistillation, compute_perplexity

Make = Callable[..., DistillationConfig]


@pytest.fixture(scope="module")
def bare(rows: Dataset) -> Dataset:
    """Padded ids and nothing that says so."""
    return rows.select_columns(["input_ids"])


def test_padding_without_a_mask_is_told_by_the_tokenizer(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    bare: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    learns = KnowledgeDistillation(teacher, student, make(), tokenizer)
    masked = rows.select_columns(["input_ids", "attention_mask"])
    scores = learns.evaluate(masked)
    assert learns.evaluate(bare) == scores
    assert compute_perplexity(student, bare, tokenizer) == pytest.approx(scores["perplexity"], rel=1e-6)
    own_labels = bare.add_column("labels", bare["input_ids"])
    assert learns.evaluate(own_labels) == scores
    learns.command()
    assert "does not say all" not in caplog.text
    learns.train(bare, bare)
    learns.command()
    assert "its padding was told by the tokenizer in hand" in caplog.text
    assert "which is scored" not in caplog.text


def test_the_command_says_how_the_rows_of_the_training_were_scored(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    bare: Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Before there was one, it is that of rows with a response, as that of the config is."""
    learns = KnowledgeDistillation(teacher, student, make(), tokenizer)
    before = learns.command("rows")
    assert "data.score" not in before
    learns.train([{"prompt": f"What is {n}?", "response": f"It is {n}."} for n in range(4)])
    assert learns.command("rows") == before
    learns.train(bare)
    assert " data.score=all " in learns.command("rows")


def test_what_looks_like_padding_is_told_where_no_tokenizer_is_known(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    bare: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    eos = rows[0]["input_ids"][-1]
    for quiet in (
        rows,
        [{"input_ids": row["input_ids"][: sum(row["attention_mask"])]} for row in rows],
        [{"input_ids": row["input_ids"], "labels": [*row["input_ids"][:-1], -100]} for row in rows],
    ):
        learns.evaluate(quiet)
    assert "which is scored" not in caplog.text
    learns.evaluate(bare)
    assert f"end in a run of {eos}, which is scored: no attention_mask says that it is padding" in caplog.text


def on_the_left(rows: Dataset, pad: int) -> list[dict[str, Any]]:
    """The same rows, padded before they begin."""
    real = [row["input_ids"][: sum(row["attention_mask"])] for row in rows]
    width = max(map(len, real))
    return [{"input_ids": [pad] * (width - len(ids)) + ids} for ids in real]


def test_padding_on_the_left_is_told_where_pad_means_nothing_else(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    masked = rows.select_columns(["input_ids", "attention_mask"])
    own_pad = copy.deepcopy(tokenizer)
    own_pad.pad_token = "<|pad|>"
    assert own_pad.pad_token_id not in (own_pad.eos_token_id, own_pad.bos_token_id)
    learns = KnowledgeDistillation(teacher, student, make(), own_pad)
    scores = learns.evaluate(masked)
    assert learns.evaluate(on_the_left(rows, own_pad.pad_token_id)) == scores
    assert "which is scored" not in caplog.text
    ends = KnowledgeDistillation(teacher, student, make(), tokenizer)  # pad = EOS: a row's own, perhaps
    eos = tokenizer.eos_token_id
    ends.evaluate([{"input_ids": [eos, *row["input_ids"]]} for row in masked])  # one is a document's mark
    assert "which is scored" not in caplog.text
    assert ends.evaluate(on_the_left(rows, eos))["eval_tokens"] > scores["eval_tokens"]
    assert f"begin in a run of {eos}, which is scored" in caplog.text
    caplog.clear()
    KnowledgeDistillation(teacher, student, make()).evaluate(on_the_left(rows, 3))
    assert "begin in a run of 3, which is scored" in caplog.text


E, P = 0, 1
PROMPTS: dict[str, tuple[list[int], list[int], list[int]]] = {
    "on the left": ([P, P, 10, 11, 12, 13], [P, P, 10, 11], [10, 11]),
    "on the left, each its own way": ([P, P, 10, 11, 12, 13], [P, 10, 11], [10, 11]),
    "on the right": ([10, 11, 12, E, P, P], [10, 11, P, P], [10, 11]),
    "on the right of the prompt alone": ([10, 11, 12, E], [10, 11, P], [10, 11]),
    "beyond a short row": ([10, 11, E, P, P], [10, 11, E, P], [10, 11, E]),
    "nowhere": ([10, 11, 12, E], [10, 11], [10, 11]),
}
"""Row, prompt, and the prompt's real tokens."""


@pytest.mark.parametrize(
    ("where", "pad"), [*itertools.product(PROMPTS, [P]), *itertools.product(list(PROMPTS)[2:], [E])]
)
def test_prompts_are_padded_as_their_rows_are(
    where: str, pad: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Pad may be EOS, which a prompt may end in; padding on the left is not told then."""
    own = copy.deepcopy(tokenizer)
    own.pad_token_id = pad
    assert own.eos_token_id == E
    ids, prompt, real = ([pad if i == P else i for i in some] for some in PROMPTS[where])
    turns = {"input_ids": [10, E, 12], "prompt_input_ids": [10, E]}
    raw = without_padding(raw_rows([{"input_ids": ids, "prompt_input_ids": prompt}, turns], "rows"), own)
    read = read_rows(raw, max_length=96, tokenizer=own, ids=TokenIds(1024), wants_prompts=True)
    assert [row["prompt_ids"] for row in read] == [real, [10, E]]


def test_rows_that_differ_or_do_not_fit_are_read_or_named(
    teacher: PreTrainedModel, student: PreTrainedModel, make: Make
) -> None:
    """A row without labels is scored whole; what labels leave unscored is a prompt, and no padding is."""
    learns = KnowledgeDistillation(teacher, student, make())
    labelled = {"input_ids": [5, 7, 6], "labels": [-100, 7, 6]}
    mixed = [labelled, {"input_ids": [5, 8, 6]}, {"input_ids": [5, 9, 6], "labels": None}]
    assert learns.evaluate(mixed)["eval_tokens"] == 2 + 2 + 2
    for labels in ([1], [], 3, [[5], [5], [6]], [None, 5, 6]):
        for beside in ({"input_ids": [5, 5, 6]}, {"input_ids": [5, 5, 6], "labels": [5, 5, 6]}):
            with pytest.raises(ArgumentError, match=r"^eval_dataset, row 1: (column )?labels "):
                learns.evaluate([beside, {"input_ids": [5, 5, 6], "labels": labels}])
    with pytest.raises(ArgumentError, match="row 0: column input_ids is not a list of whole numbers"):
        learns.evaluate([{"input_ids": [[5, 6], [5, 6]]}] * 2)

    def read(*rows: dict[str, Any]) -> list[list[int]]:
        raw = without_padding(raw_rows(list(rows), "rows"), None)
        told = read_rows(raw, max_length=96, tokenizer=None, ids=TokenIds(1024), wants_prompts=True)
        return [row["prompt_ids"] for row in told]

    left = {"input_ids": [0, 0, 5, 6, 7], "attention_mask": [0, 0, 1, 1, 1]}
    empty = {"input_ids": [0, 0], "attention_mask": [0, 0]}
    assert read(labelled, empty) == [[5]]
    assert read(left | {"labels": [-100, -100, -100, 6, 7]}, labelled) == [[5], [5]]
    for unsaid in (*mixed[1:], left | {"labels": [-100, -100, 5, 6, 7]}, left):
        with pytest.raises(ArgumentError, match=r"^rows has no column prompt_input_ids"):
            read(labelled, unsaid)
    for odd in ({"labels": [-100]}, {"labels": 3}, {"labels": [-100, 7, 6], "attention_mask": [1]}):
        with pytest.raises(InputError, match=r"^rows, row 1: (column )?(labels|attention_mask) "):
            read(labelled, {"input_ids": [5, 7, 6]} | odd)
    with pytest.raises(ArgumentError, match=r"^rows, row 0: prompt_input_ids holds no real token"):
        read({"input_ids": [5, 7, 6], "prompt_input_ids": 5})


def test_batches_that_a_loader_took_apart_are_refused_with_the_way_out(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    columns = rows.select_columns(["input_ids", "attention_mask"])
    lengths = [
        {key: row[key][: sum(row["attention_mask"])] for key in ("input_ids", "attention_mask")}
        for row in rows
    ]
    for refused in (DataLoader(columns, batch_size=4), DataLoader(lengths, batch_size=4)):  # type: ignore[arg-type, var-annotated]
        with pytest.raises(ArgumentError, match=r"^eval_dataset is a DataLoader whose batches") as caught:
            learns.evaluate(refused)
        assert 'dataset.with_format("torch")' in str(caught.value)
        assert "collate_fn=DataCollatorWithPadding(tokenizer)" in str(caught.value)
    wanted = learns.evaluate(columns)
    padded: Any = DataLoader(lengths, 4, collate_fn=DataCollatorWithPadding(tokenizer))  # type: ignore[arg-type]
    for way_out in (DataLoader(columns.with_format("torch"), batch_size=4), padded, lengths):
        assert learns.evaluate(way_out) == pytest.approx(wanted)

    def broken() -> Any:
        yield from rows.to_list()[:2]
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        learns.evaluate(broken())


def test_batches_of_text_are_the_same_rows(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    tokenizer: PreTrainedTokenizerBase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A list is refused where a loader took it apart; in a row that is no batch its first entry is the
    text, as in the runner's files."""
    learns = KnowledgeDistillation(teacher, student, make(), tokenizer)
    texts = [{"text": "a rabbit lives here " * (i + 1), "number": i} for i in range(6)]
    pairs = [{"prompt": row["text"], "response": "so it is", "context": "once"} for row in texts]
    several = [{"prompt": "Who?", "response": [f"a rabbit {i}", "no one, and nobody else"]} for i in range(6)]
    for given in (texts, pairs, several):
        rows: Any = given
        wanted = learns.evaluate(rows)
        batched = [DataLoader(rows, None), DataLoader(rows, 1), Dataset.from_list(rows).batch(4)]
        for batches in batched + [DataLoader(rows, 4)] * (rows is not several):
            assert learns.evaluate(batches) == pytest.approx(wanted)
    perplexity = compute_perplexity(student, texts, tokenizer)
    assert compute_perplexity(student, DataLoader(texts, 4), tokenizer) == pytest.approx(perplexity)  # type: ignore[arg-type, var-annotated]
    nested = [row | {"meta": {"number": 1}} for row in texts]
    empty = [row | {"context": None} for row in pairs]
    for refused in (several, nested, empty):
        loader: Any = DataLoader(refused, batch_size=2)  # type: ignore[arg-type, var-annotated]
        with pytest.raises(ArgumentError, match=r"^eval_dataset is a DataLoader whose batches"):
            learns.evaluate(loader)
    first = learns.evaluate([{"text": texts[0]["text"], "number": 0}])
    assert learns.evaluate([{"text": [row["text"] for row in texts], "number": 0}]) == first
    learns.train(DataLoader(texts, 4))  # type: ignore[arg-type, var-annotated]
    learns.command()
    assert "does not say all" not in caplog.text
    learns.train(Dataset.from_list(texts).batch(4))
    learns.command()
    assert "its rows came in batches" in caplog.text


def test_a_stream_is_read_until_there_are_as_many_rows_as_max_steps_see(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tmp_path: Path,
) -> None:
    """Rows that drop out are replaced by later ones, and none is seen twice."""
    own = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    plain = rows.select_columns(["input_ids", "attention_mask"]).to_list()
    taken: list[int] = []

    def stream() -> Any:
        for number, row in enumerate(itertools.cycle(plain)):
            taken.append(number)
            yield row if number % 3 == 0 else {**row, "attention_mask": [1] + [0] * 95}

    learns = KnowledgeDistillation(teacher, student, make())
    output = learns.train(stream(), None, own)
    assert output.global_step == 2
    assert learns.history[-1]["epoch"] == 1, "8 rows, each seen once"
    assert 22 <= len(taken) <= 24, "the eighth usable row is number 21, read by eights"
    hopeless = ({**row, "attention_mask": [0] * 96} for row in itertools.cycle(plain))
    with pytest.raises(ArgumentError, match="no row has a token to learn from"):
        learns.train(hopeless, None, own)


@pytest.mark.parametrize("padded", [False, True])
def test_padding_is_told_of_a_stream_that_has_some(
    padded: bool,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Padding of the row that stands in for one that dropped out is told too."""
    own = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, report_to=[], disable_tqdm=True
    )
    ids = [row["input_ids"][: sum(row["attention_mask"])] for row in rows]
    stream = iter([ids[0], ids[1][:1], ids[2] + [tokenizer.eos_token_id] * 3 * padded, ids[3]])
    learns = KnowledgeDistillation(teacher, student, make(), tokenizer)
    learns.train(({"input_ids": row} for row in stream), None, own)
    learns.command()
    assert ("its padding was told by the tokenizer in hand" in caplog.text) == padded


def test_rows_that_are_cut_are_counted(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    make: Make,
    rows: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    learns = KnowledgeDistillation(teacher, student, make())
    learns.evaluate(rows)
    assert "max_length" not in caplog.text
    lengths = [sum(mask) for mask in rows["attention_mask"]]
    limit = sorted(lengths)[-4]
    longer = sum(length > limit for length in lengths)
    learns.config.max_length = limit
    tokens = learns.evaluate(rows)["eval_tokens"]
    assert f"eval_dataset: {longer} of 16 rows lose what is beyond max_length={limit}." in caplog.text
    assert tokens == sum(min(length, limit) - 1 for length in lengths)


@pytest.mark.parametrize(
    ("more", "told"),
    [({"facts": "It is red."}, ["facts"]), ({"context": "It is red.", "note": "a b"}, []), ({}, [])],
)
def test_columns_that_prompts_may_be_about_and_nobody_reads_are_told(
    more: dict[str, str],
    told: list[str],
    tokenizer: PreTrainedTokenizerBase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [{"prompt": "What is it?", "response": "A fox.", **more}]
    read_rows(raw_rows(rows, "train_dataset"), max_length=64, tokenizer=tokenizer, ids=TokenIds(4096))
    said = [record.getMessage() for record in caplog.records if "not read" in record.getMessage()]
    assert said == [
        f"train_dataset: Columns that are not read: {name}. Call the one that a prompt is about `context`."
        for name in told
    ]
