"""Splits: disjoint, the same every time, counted, and told apart by prompt."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from distil.data.base import ColumnsConfig
from distil.data.columns import Kind, Shape, detect, prompt_of
from distil.data.dolly15k import Dolly15kConfig
from distil.data.embedded import EmbeddedDataConfig, generate_rows
from distil.data.held_out import set_aside
from distil.data.jsonl import JsonlConfig
from distil.data.splits import Splits, load_splits
from distil.engine.evaluation import entropy_floor
from distil.types import IGNORE_INDEX, InputError
from tests.unit.data.conftest import WriteJsonl


def rows(count: int, repeats: int = 1) -> list[dict[str, Any]]:
    return [{"prompt": f"say {i // repeats}\n", "response": f"it is {i}"} for i in range(count)]


def content(splits: Splits) -> list[list[dict[str, Any]]]:
    return [split.to_list() for split in (splits.train, splits.validation, splits.test)]


def test_the_same_config_gives_the_same_rows(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    config = JsonlConfig(train_file=jsonl("a.jsonl", rows(200)), validation_fraction=0.1)
    first, second = load_splits(config, gpt2), load_splits(config, gpt2)
    assert content(first) == content(second)
    assert [len(split) for split in content(first)] == [160, 20, 20]
    numbers = [row["row"] for split in content(first) for row in split]
    assert sorted(numbers) == list(range(200)), "every row is in one split"
    config.split_seed = 1
    assert {row["row"] for row in content(load_splits(config, gpt2))[2]} != {
        row["row"] for row in content(first)[2]
    }


def test_columns(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    splits = load_splits(JsonlConfig(train_file=jsonl("a.jsonl", rows(60))), gpt2)
    for row in splits.train:
        assert row["prompt"] == f"say {row['row']}\n"
        assert row["response"] == f"it is {row['row']}"
        assert row["prompt_ids"] == gpt2(row["prompt"])["input_ids"]
        assert row["input_ids"][: len(row["prompt_ids"])] == row["prompt_ids"]
        scored = [label for label in row["labels"] if label != IGNORE_INDEX]
        assert gpt2.decode(scored) == row["response"] + gpt2.eos_token


@pytest.mark.parametrize(
    ("columns", "way"),
    [
        (("question", "answer"), "$'data.prompt_template=\"{question}\\n\"'"),
        (('the "question"', "answer"), "call the column prompt"),
        (("question", "answer", "context"), "call the column prompt"),
        (("instruction", "response"), None),
        (("prompt", "response"), None),
    ],
)
def test_headings_that_nobody_expects_are_told(
    columns: tuple[str, ...], way: str | None, jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase
) -> None:
    """Once, with a way to leave them out, which does."""
    made = [{name: f"{name} {i}\n" for name in columns} for i in range(40)]
    for row in made[::2]:
        row |= {"context": ""} if "context" in row else {}
    config = JsonlConfig(train_file=jsonl("a.jsonl", made), prompt_column=columns[0])
    splits = load_splits(config, gpt2)
    assert [way is not None and f"Without the headings: {way}." in note for note in splits.notes] == (
        [True] * bool(way)
    )
    if way is None:
        return
    assert splits.train["prompt"][0].startswith("### Instruction:\n"), "as the note says"
    assert "Alpaca form" in splits.notes[0]
    if "template" in way:
        override = ast.literal_eval(way.removeprefix("$"))  # bash reads \n there as Python does
        template = OverridesParser.create().parse_override(override).value()
        bare = replace(config, prompt_template=str(template))
    else:
        renamed = [{"prompt" if name == columns[0] else name: row[name] for name in row} for row in made]
        bare = JsonlConfig(train_file=jsonl("b.jsonl", renamed))
    splits = load_splits(bare, gpt2)
    assert splits.notes == []
    end = "\n" * ("template" in way)
    wanted = {"\n\n".join(filter(None, (row[columns[0]], row.get("context")))) + end for row in made}
    assert set(splits.train["prompt"]) < wanted


@pytest.mark.parametrize(("end", "told"), [("\n", False), (r"\n", True), (r" $\neq$", True), ("", False)])
def test_a_backslash_and_an_n_in_a_template_are_told(
    end: str, told: bool, jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase
) -> None:
    """LaTeX, or a line break that a shell's quotes did not make: the rows hold what was written."""
    config = JsonlConfig(train_file=jsonl("a.jsonl", rows(40)), prompt_template=f"{{prompt}}{end}")
    splits = load_splits(config, gpt2)
    assert splits.train["prompt"][0].endswith(end)
    assert any("holds \\n as two characters" in note for note in splits.notes) == told


GLUED = {
    "prompt": ({"prompt": "Name a colour.", "response": "Blue."}, {}, "{prompt}\\n"),
    "blank": ({"prompt": "Name a colour.\n", "response": "Blue."}, {}, None),
    "other": ({"prompt": "Name a colour.", "response": " Blue."}, {}, None),
    "sign": ({"prompt": "2 + 2 = (", "response": "4)"}, {}, None),
    "russian": ({"prompt": "Назови цвет.", "response": "Blue."}, {}, "{prompt}\\n"),
    "quote": ({"prompt": "Name a colour.", "response": '"Blue."'}, {}, "{prompt}\\n"),
    "chinese": ({"prompt": "说一种颜色。", "response": "蓝色。"}, {}, None),
    "headings": ({"instruction": "Name a colour.", "response": "Blue."}, {}, None),
    "context": (
        {"prompt": "Name it.", "context": "A sky.", "response": "Blue."},
        {},
        "End columns prompt and context with one.",
    ),
    "template": (
        {"ask": "Name a colour.", "response": "Blue."},
        {"prompt_template": "{ask} A:"},
        "End data.prompt_template with one.",
    ),
    "text": ({"text": "Name a colour."}, {}, None),
}


@pytest.mark.parametrize(("row", "keys", "way"), GLUED.values(), ids=GLUED)
def test_responses_that_begin_in_the_last_word_of_their_prompt_are_told(
    row: dict[str, str],
    keys: dict[str, Any],
    way: str | None,
    jsonl: WriteJsonl,
    gpt2: PreTrainedTokenizerBase,
) -> None:
    (first, *_) = row
    made = [row | {first: f"{i} {row[first]}"} for i in range(40)]
    notes = load_splits(JsonlConfig(train_file=jsonl("a.jsonl", made), **keys), gpt2).notes
    told = [note for note in notes if note.startswith("Prompts end without a blank or a line break")]
    assert len(told) == (way is not None)
    if way is not None:
        assert way in told[0]
        assert "Blue." in told[0]


def test_a_template_that_is_told_for_them_sets_a_line_break(
    jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase, chatml: PreTrainedTokenizerBase
) -> None:
    file = jsonl("a.jsonl", [{"prompt": f"Say {i}.", "response": f"{i}"} for i in range(40)])
    (note,) = load_splits(JsonlConfig(train_file=file), gpt2).notes
    assert load_splits(JsonlConfig(train_file=file), chatml).notes == []
    override = ast.literal_eval(note.rpartition("$")[2].removesuffix("."))
    template = str(OverridesParser.create().parse_override(override).value())
    splits = load_splits(JsonlConfig(train_file=file, prompt_template=template), gpt2)
    assert splits.notes == []
    assert all(prompt.endswith(".\n") for prompt in splits.train["prompt"])


def test_caps_take_a_part_of_the_same_split(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    path = jsonl("a.jsonl", rows(300))
    whole = content(load_splits(JsonlConfig(train_file=path, validation_fraction=0.2), gpt2))
    part = content(load_splits(JsonlConfig(train_file=path, validation_fraction=0.2,
                                           max_train_rows=50, max_eval_rows=10), gpt2))  # fmt: skip
    assert [len(split) for split in part] == [50, 10, 10]
    for full, some in zip(whole, part, strict=True):
        assert [row for row in full if row in some] == some, "a subset, in file order"
    assert part[0] != whole[0][:50], "not the head of a file that may be sorted"


def test_own_splits_are_kept(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    config = JsonlConfig(
        train_file=jsonl("train.jsonl", rows(50)), validation_file=jsonl("dev.jsonl", rows(7)),
    )  # fmt: skip
    splits = load_splits(config, gpt2)
    assert len(splits.validation) == 7
    assert (len(splits.train), len(splits.test)) == (48, 2), "only the missing one is set aside"


def test_rows_of_one_prompt_stay_together(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    config = JsonlConfig(train_file=jsonl("a.jsonl", rows(120, repeats=3)), validation_fraction=0.2)
    prompts = [{row["prompt"] for row in split} for split in content(load_splits(config, gpt2))]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 40


def turns(number: int, *closing: str) -> dict[str, Any]:
    said = [{"role": "user", "content": f"{number // 4}"}, {"role": "assistant", "content": f"{number}"}]
    return {"messages": said + [{"role": "user", "content": text} for text in closing]}


@pytest.mark.parametrize(
    ("row", "template"),
    [
        (lambda i: turns(i), None),
        (lambda i: turns(i, "thanks"), None),
        (lambda i: turns(i, "thanks", "bye"), None),
        (lambda i: {"question": i // 4, "context": i, "answer": i}, "{question}?"),
        (lambda i: {"title": i // 4, "body": "b", "answer": i}, "{title}: {body}"),
        (lambda i: {"question": i // 8, "hint": i // 4, "answer": i}, "{question} {hint}"),
        (lambda i: {"question": i % 2, "body": i // 4 * 2 + i % 2, "answer": i}, "{question} {body}"),
        (lambda i: {"question": "the same", "body": i // 4, "answer": i}, "{question} {body}"),
    ],
)
def test_what_one_prompt_is(row: Callable[[int], dict[str, Any]], template: str | None) -> None:
    """What the response answers: turns before it, columns that a template writes, and no others."""
    source = [row(i) for i in range(80)]
    config = ColumnsConfig(name="t", validation_fraction=0.1, prompt_template=template)
    shape = detect(config, list(source[0]), "rows")

    def prompt(number: int) -> str:
        if shape.kind is Kind.MESSAGES:
            return str(source[number]["messages"][0])
        return prompt_of(source[number], shape, True, "rows")

    parts = set_aside(source, shape, ["validation", "test"], config, "rows")
    prompts = [{prompt(number) for number in part} for part in parts.values()]
    assert len(prompts) == 3
    assert sum(map(len, prompts)) == len(set.union(*prompts)) > 3
    if template == "{question} {hint}":
        questions = [{source[number]["question"] for number in part} for part in parts.values()]
        assert sum(map(len, questions)) == len(set.union(*questions)), "these, too, where they can"


@given(st.lists(st.integers(0, 30), min_size=3, max_size=60), st.floats(0.01, 0.49), st.integers(0, 3))
def test_setting_aside(prompts: list[int], fraction: float, seed: int) -> None:
    config = ColumnsConfig(name="t", validation_fraction=fraction, split_seed=seed)
    source = [{"prompt": f"{p}", "response": f"{i}"} for i, p in enumerate(prompts)]
    shape = Shape(Kind.PAIR, "prompt", "response")
    parts = set_aside(source, shape, ["validation", "test"], config, "rows")
    assert sorted(n for part in parts.values() for n in part) == list(range(len(prompts)))
    size = max(1, round(fraction * len(prompts)))
    assert all(1 <= len(parts[split]) <= size for split in ("validation", "test"))
    assert parts == set_aside(source, shape, ["validation", "test"], config, "rows")


def test_too_few_rows_to_split(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    config = JsonlConfig(train_file=jsonl("a.jsonl", rows(2)))
    with pytest.raises(InputError, match=r"2 rows.*too few.*data.validation_file"):
        load_splits(config, gpt2)


def test_one_prompt_for_all(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    config = JsonlConfig(train_file=jsonl("a.jsonl", rows(40, repeats=40)))
    assert [len(split) for split in content(load_splits(config, gpt2))] == [36, 2, 2]


def test_equal_rows_stay_together(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    copies = [{"prompt": f"{i % 9}\n", "response": f"{i % 9}"} for i in range(90)]
    splits = content(load_splits(JsonlConfig(train_file=jsonl("a.jsonl", copies)), gpt2))
    assert [len(split) for split in splits] == [70, 10, 10]
    assert not {r["prompt"] for r in splits[0]} & {r["prompt"] for r in splits[1] + splits[2]}
    with pytest.raises(InputError, match=r"40 rows, 2 of them different"):
        load_splits(JsonlConfig(train_file=jsonl("b.jsonl", [copies[i % 2] for i in range(40)])), gpt2)


def test_as_few_different_rows_as_splits(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    uneven = [{"prompt": f"{i}\n", "response": "yes"} for i in [0] * 40 + [1, 2]]
    splits = content(load_splits(JsonlConfig(train_file=jsonl("a.jsonl", uneven)), gpt2))
    assert [len(split) for split in splits] == [40, 1, 1]


def test_dropped_rows_are_counted(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    bad = [
        {"prompt": "word " * 40, "response": "too long a prompt"},
        {"prompt": "a", "response": ""},
        {"prompt": "b", "response": None},
        {"prompt": None, "response": "c"},
    ]
    files = {
        f"{split}_file": jsonl(f"{split}.jsonl", rows(20) + (bad if split == "train" else []))
        for split in ("train", "validation", "test")
    }
    splits = load_splits(JsonlConfig(**files, max_length=30), gpt2)
    assert splits.dropped == {"empty prompt": 1, "empty response": 2, "prompt fills data.max_length": 1}
    assert len(splits.train) == 20
    assert load_splits(JsonlConfig(**files, max_length=30, truncation="prompt_left"), gpt2).dropped == {
        "empty prompt": 1, "empty response": 2,
    }  # fmt: skip


def test_a_cut_response_does_not_teach_to_stop(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    long = [{"prompt": f"{i}\n", "response": "word " * 50} for i in range(30)]
    splits = load_splits(JsonlConfig(train_file=jsonl("a.jsonl", long), max_length=20), gpt2)
    for row in splits.train:
        assert len(row["input_ids"]) == 20
        assert gpt2.eos_token_id not in row["labels"]


@pytest.mark.parametrize("truncation", ["response", "prompt_left", "drop"])
def test_rows_that_are_cut_are_told(
    truncation: str, jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase
) -> None:
    """Counted among the rows that are kept; those that ``drop`` leaves out are counted there."""
    long = [{"prompt": f"{'word ' * 15}{i}\n", "response": "word " * 50} for i in range(12)]
    files = {"train_file": jsonl("a.jsonl", rows(20) + long), "validation_file": jsonl("b.jsonl", rows(3))}
    files |= {"test_file": jsonl("c.jsonl", [*rows(4), long[0]])}
    config = JsonlConfig(**files, max_length=20, truncation=truncation)
    splits = load_splits(config, gpt2)
    cut = [note for note in splits.notes if "data.max_length" in note]
    if truncation == "drop":
        assert (cut, splits.dropped) == ([], {"longer than data.max_length": 13})
        return
    assert cut == [
        "12 of 32 training rows and 1 of 5 test rows are longer than data.max_length=20 and were cut "
        f"(data.truncation={truncation})."
    ]
    one = load_splits(replace(config, train_file=jsonl("d.jsonl", rows(20)), max_train_rows=5), gpt2)
    assert any(note.startswith("1 of 5 test rows is longer than") for note in one.notes)
    assert not any(
        "data.max_length" in note for note in load_splits(replace(config, max_length=90), gpt2).notes
    )


def test_test_rows_that_are_copies_are_told(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    """Copies are set aside together, so that none is trained on; they are no more rows for it."""
    copied = load_splits(
        JsonlConfig(train_file=jsonl("a.jsonl", rows(8) * 6), validation_fraction=0.12), gpt2
    )
    assert len(copied.test) == 6
    assert copied.notes == [
        "Of 6 test rows 1 is different: copies tell nothing new, so scores are less sure than said."
    ]
    mostly = [*rows(9), *rows(4)]
    config = JsonlConfig(train_file=jsonl("b.jsonl", rows(60)[20:]), test_file=jsonl("c.jsonl", mostly))
    assert load_splits(config, gpt2).notes == [], "9 of 13"
    config = replace(config, test_file=jsonl("d.jsonl", rows(2) * 2))
    assert [note.partition(":")[0] for note in load_splits(config, gpt2).notes] == [
        "Of 4 test rows 2 are different"
    ]


def test_held_out_rows_that_are_trained_on_are_told(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    """Those that are set aside, or that a cap leaves out, are trained on no more; validation rows are told of
    test rows likewise."""
    train, other = rows(40), [row | {"prompt": f"{row['prompt']}?"} for row in rows(9)]
    same = jsonl("a.jsonl", train)
    config = JsonlConfig(train_file=same, test_file=jsonl("b.jsonl", other + train[:3]))

    def told(**keys: Any) -> list[str]:
        return load_splits(replace(config, **keys), gpt2).notes

    choosing = "what validation chooses is not tested on others."
    splits = load_splits(replace(config, split_seed=8), gpt2)
    assert [len(set(rows["row"]) & {0, 1, 2}) for rows in (splits.train, splits.validation)] == [2, 1]
    assert splits.notes == [
        "2 of 12 test rows are training rows, too: their scores are not of held-out rows.",
        f"1 of 12 test rows is a validation row, too: {choosing}",
    ]
    assert told(validation_file=jsonl("c.jsonl", [train[7], other[0]]), test_file=same) == [
        "1 of 2 validation rows and 40 of 40 test rows are training rows, too: their scores are not of "
        "held-out rows.",
        f"1 of 40 test rows is a validation row, too: {choosing}",
    ]
    apart = jsonl("d.jsonl", other)
    assert told(validation_file=jsonl("e.jsonl", [train[7]]), test_file=apart) == [
        "1 of 1 validation row is a training row, too: its scores are not of held-out rows."
    ]
    assert told(test_file=apart) == told(test_file=None) == []


@pytest.mark.parametrize(
    ("train", "test", "told"),
    [
        ({"prompt": "a"}, {"instruction": "a"}, ("in the Alpaca form", "as they are")),
        ({"instruction": "a"}, {"prompt": "a"}, ("as they are", "in the Alpaca form")),
        ({"instruction": "a"}, {"question": "a", "context": "b"}, None),
        ({"prompt": "a"}, {"text": "a"}, ("as raw text", "as they are")),
        ({"text": "a"}, {"input_ids": [1, 2]}, ("as token ids", "as raw text")),
    ],
)
def test_splits_that_are_written_in_different_forms_are_told(
    train: dict[str, Any],
    test: dict[str, Any],
    told: tuple[str, str] | None,
    jsonl: WriteJsonl,
    gpt2: PreTrainedTokenizerBase,
    chatml: PreTrainedTokenizerBase,
) -> None:
    files = []
    for name, row in (("a.jsonl", train), ("b.jsonl", test)):
        column = "text" if "text" in row else "response"
        files.append(jsonl(name, [row | {column: f"{name} {i}"} for i in range(9)]))
    config = JsonlConfig(train_file=files[0], test_file=files[1])
    found = [note for note in load_splits(config, gpt2).notes if "are written" in note]
    start = [] if told is None else [f"test rows are written {told[0]}, training rows {told[1]}: "]
    assert [note[: len(start[0])] if start else note for note in found] == start
    if "text" not in train | test:  # a chat template is one form
        assert not any("are written" in note for note in load_splits(config, chatml).notes)


def test_max_length_that_fits_no_prompt(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    data = [{"prompt": "word " * (10 + i), "response": "yes"} for i in range(30)]
    shortest = min(len(gpt2(row["prompt"])["input_ids"]) for row in data)
    config = JsonlConfig(train_file=jsonl("a.jsonl", data), max_length=8)
    with pytest.raises(
        InputError, match=r"data.max_length=8 .*the shortest prompt has (\d+) tokens"
    ) as caught:
        load_splits(config, gpt2)
    named = int(str(caught.value).split("shortest prompt has ")[1].split()[0])
    assert named >= shortest
    assert named <= shortest + 3, "rows set aside for evaluation are not looked at"


def test_no_row_with_a_scored_token(jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    masked = [{"input_ids": [i, 1, 2], "labels": [-100, -100, -100]} for i in range(40)]
    with pytest.raises(InputError, match=r"no train row has a scored token. Dropped: no scored token \(36\)"):
        load_splits(JsonlConfig(train_file=jsonl("a.jsonl", masked)), gpt2)


def test_embedded_rows_carry_what_evaluates_them(gpt2: PreTrainedTokenizerBase) -> None:
    config = EmbeddedDataConfig(max_train_rows=30, max_eval_rows=5)
    splits = load_splits(config, gpt2)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [30, 5, 5]
    raw = generate_rows("test", 5, 0)
    for row, source in zip(splits.test, raw, strict=True):
        assert json.loads(row["slots"]) == source["slots"]
        assert row["log_probability"] == source["log_probability"] < 0
        assert row["prompt"] == source["prompt"], "as it is, without headings"
    assert content(load_splits(config, gpt2)) == content(splits)
    assert entropy_floor(splits.test)
    whole = max(map(len, splits.test["input_ids"]))
    cut = load_splits(replace(config, max_length=whole - 1), gpt2).test
    assert list(cut["log_probability"]) == [
        None if len(row["input_ids"]) == whole else row["log_probability"] for row in splits.test
    ], "of the response that the row has"
    assert entropy_floor(cut) == {}
    with pytest.raises(InputError, match=r"data.max_train_rows=null: .* has no end"):
        EmbeddedDataConfig(max_train_rows=None)


@pytest.fixture(scope="module")
def dolly(shared_data: Path) -> Path:
    return shared_data / "dolly"


def test_dolly_in_both_shapes(dolly: Path, tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    """Original and MiniLLM columns of the same rows give the same tokens."""
    with open(dolly / "databricks-dolly-15k.jsonl", encoding="utf-8") as file:
        original = [json.loads(line) for line, _ in zip(file, range(400), strict=False)]
    other = [
        {"instruction": r["instruction"], "input": r["context"], "output": r["response"]} for r in original
    ]
    both = []
    for name, shape in (("a.jsonl", original), ("b.jsonl", other)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in shape), encoding="utf-8")
        both.append(content(load_splits(Dolly15kConfig(path=str(tmp_path / name)), gpt2)))
    assert both[0] == both[1]


def test_real_dolly_files(dolly: Path, gpt2: PreTrainedTokenizerBase) -> None:
    """The folder's own splits; every scored label is the row's response and EOS, or its cut beginning."""
    splits = load_splits(Dolly15kConfig(path=str(dolly), max_train_rows=300, max_eval_rows=100), gpt2)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [300, 100, 100]
    for row in splits.train:
        scored = gpt2.decode([label for label in row["labels"] if label != IGNORE_INDEX])
        whole = row["response"] + gpt2.eos_token
        assert scored == whole if len(row["input_ids"]) < 512 else whole.startswith(scored.rstrip("\ufffd"))
        assert row["prompt"].startswith("### Instruction:\n")
    one_file = load_splits(Dolly15kConfig(path=str(dolly / "databricks-dolly-15k.jsonl"), max_train_rows=50,
                                          max_eval_rows=20), gpt2)  # fmt: skip
    assert len(one_file.test) == 20
