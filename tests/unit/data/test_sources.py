"""Sources: every kind of file gives the same rows; what cannot be read is said in one message."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from distil.data.base import ColumnsConfig, check_data, source_of
from distil.data.columns import Kind, detect
from distil.data.dolly15k import Dolly15kConfig
from distil.data.hf import HfConfig
from distil.data.jsonl import JsonlConfig
from distil.data.local import load_file
from distil.data.splits import load_splits
from distil.system import hub
from distil.types import InputError
from tests.unit.data.conftest import WriteJsonl

ROWS = [
    {
        "prompt": f"say {i}, “please”\n",
        "response": ["NA", "007", "2020-01-01", "null", 'a "b", c\nd', "🙂"][i % 6],
    }
    for i in range(60)
]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(str(path))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(suffix: str, tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    path = write(tmp_path / f"rows{suffix}", ROWS)
    before = listing(tmp_path)
    config = JsonlConfig(train_file=str(path))
    check_data(config)
    splits = load_splits(config, gpt2)
    parts = (splits.train, splits.validation, splits.test)
    loaded = {row["row"]: (row["prompt"], row["response"]) for part in parts for row in part}
    assert [loaded[i] for i in range(60)] == [(row["prompt"], row["response"]) for row in ROWS]
    assert listing(tmp_path) == before, "nothing is written beside the data"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_dates_keep_their_spelling(suffix: str, tmp_path: Path) -> None:
    """A column of nothing but dates is text, not what Arrow's JSON reader makes of it."""
    rows = [{"prompt": "When?", "response": f"2020-01-02 1{i}:00:00"} for i in range(5)]
    path = write(tmp_path / f"dates{suffix}", rows)
    assert list(load_file("rows", path)) == rows


def test_sources_import_nothing_heavy() -> None:
    code = (
        "import sys; from distil.data.base import DATA; DATA.entries();"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_cache_of_datasets_is_not_touched(
    tmp_path: Path, jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    load_splits(JsonlConfig(train_file=jsonl("a.jsonl", ROWS)), gpt2)
    assert not (tmp_path / "cache").exists()


def test_data_saved_to_disk(tmp_path: Path, jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase) -> None:
    from datasets import Dataset, DatasetDict

    expected = load_splits(JsonlConfig(train_file=jsonl("a.jsonl", ROWS)), gpt2)
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:5])).save_to_disk(
        str(tmp_path / "many")
    )
    before = listing(tmp_path / "one")
    one = load_splits(HfConfig(path=str(tmp_path / "one")), gpt2)
    assert one.train.to_list() == expected.train.to_list()
    many = load_splits(HfConfig(path=str(tmp_path / "many")), gpt2)
    assert (len(many.train), len(many.validation), len(many.test)) == (57, 3, 5)
    swapped = HfConfig(path=str(tmp_path / "many"), train_split="test", test_split="train")
    assert len(load_splits(swapped, gpt2).test) == 60
    for named, other in (("validation", "test"), ("test", "validation")):
        (tmp_path / "pair").mkdir(exist_ok=True)
        path = str(tmp_path / "pair" / other)
        DatasetDict({"train": Dataset.from_list(ROWS), other: Dataset.from_list(ROWS[:5])}).save_to_disk(path)
        lent = load_splits(HfConfig(path=path, **{f"{named}_split": other}), gpt2)
        assert (len(getattr(lent, named)), len(getattr(lent, other)), len(lent.train)) == (5, 3, 57)
        assert not any("5 of 5 test rows are validation rows" in note for note in lent.notes)
        both = load_splits(HfConfig(path=path, validation_split=other, test_split=other), gpt2)
        assert (len(both.train), both.test.to_list()) == (60, both.validation.to_list())
        assert any(note.startswith("5 of 5 test rows are validation rows, too: ") for note in both.notes)
    with pytest.raises(InputError, match=r"data.train_split=nope is not a split .* Its splits: test, train"):
        load_splits(HfConfig(path=str(tmp_path / "many"), train_split="nope"), gpt2)
    for key in ("subset", "revision"):
        with pytest.raises(InputError, match=rf"data.{key}=a is not read: .* is no set of the hub"):
            check_data(HfConfig(path=str(tmp_path / "one"), **{key: "a"}))
    assert listing(tmp_path / "one") == before


def test_a_folder_of_files(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    for name, count in (("train", 50), ("dev", 4), ("test", 3)):
        write(tmp_path / f"{name}.jsonl", ROWS[:count])
    splits = load_splits(HfConfig(path=str(tmp_path)), gpt2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (50, 4, 3)
    keys = {"train_split": "train", "validation_split": "validation", "test_split": "test"}
    check_data(HfConfig(path=str(tmp_path), **keys))
    unread = {"train_split": "extra", "validation_split": "test", "revision": "v1", "subset": "a"}
    for key, value in unread.items():
        for path in (tmp_path, tmp_path / "train.jsonl"):
            with pytest.raises(InputError, match=rf"^data.{key}={value} is not read: "):
                check_data(HfConfig(path=str(path), **{key: value}))
    for name, split in (("train.csv", "train"), ("valid.jsonl", "validation")):
        write(tmp_path / name, ROWS[:2])
        with pytest.raises(InputError, match=rf"several {split} files: .*{name}"):
            check_data(HfConfig(path=str(tmp_path)))
        (tmp_path / name).unlink()
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(InputError, match=r"no training file.*Its data files: dev.jsonl, test.jsonl"):
        check_data(HfConfig(path=str(tmp_path)))


GOOD = '{"prompt": "a", "response": "b"}\n'
BAD_FILES = [
    ("a.jsonl", "", "is empty"),
    ("a.jsonl", "\n \n", "holds no rows"),
    ("a.jsonl", GOOD * 6 + "not json\n" + GOOD, r"line 7 is not a JSON object: 'not json'"),
    ("a.jsonl", GOOD + "[1, 2]\n", r"line 2 is not a JSON object"),
    ("a.jsonl", GOOD + '{"prompt": "a", \n', r"line 2 is not a JSON object"),
    ("a.json", "[]", "holds no rows"),
    ("a.json", '[{"prompt": 1}, 3]', "row 1 is not a JSON object: '3'"),
    ("a.json", '[{"prompt": 1}\n', "is not JSON: .* in line"),
    ("a.json", '{\n "data": []\n}', "line 1 is not a JSON object"),
    ("a.csv", "prompt,response\n", "a header and no rows"),
    ("a.csv", "\n", "has no header"),
    ("a.csv", "prompt,response\na,b\na,b,c\n", "line 3 has 3 fields, the header 2"),
    ("a.csv", "prompt;response\na;b\n", r"divided by ';'\? .* delimiter=\";\", strict=True\)\)' < \S+/a.csv"),
    ("a.csv", "prompt\tresponse\na\tb\n", r"divided by '\\t'\?"),
    ("a.jsonl", GOOD, "has 1 row: too few to set aside"),
    ("a.jsonl", '{"prompt": "a", "response": " "}\n' * 9, r"anything to learn from: empty response \(9\)"),
    ("a.jsonl", '{"prompt": "", "response": "a"}\n' * 9, r"anything to learn from: empty prompt \(9\)"),
    (
        "a.jsonl",
        '{"messages": [{"role": "user", "content": "a"}]}\n' * 9,
        r"no assistant turn \(9\)\. What is learnt are turns of role assistant",
    ),
    ("a.csv", 'text\n" "\n', r"anything to learn from: empty text \(1\)"),
    (
        "a.csv",
        "prompt,response\na,b\nc,\nd,\n",  # a row a split, and one of the three has a response
        r"no row for (test|validation) has anything to learn from: empty response \(1\)\. Leave",
    ),
    (
        "a.jsonl",
        '{"messages": [{"role": "user", "content": "a"}]}\n' * 9,
        r"to learn from: no assistant .*\(9\)",
    ),
    (
        "a.jsonl",
        GOOD * 6 + '{"prompt": {"a": 1}, "response": "b"}\n',
        "line 7: column prompt holds dict values",
    ),
    (
        "a.json",
        f"[{GOOD}, {GOOD}, " + '{"messages": 3, "prompt": "a", "response": "b"}]',
        "row 2, column messages",
    ),
    ("a.jsonl", '{"messages": [{"role": "bot", "content": "a"}]}\n', "line 1, column messages: role 'bot'"),
    ("a.parquet", "text", "not a complete Parquet file"),
    ("a.tsv", "text", r"unknown kind of file '.tsv'.* This converts it: python -c "),
    ("a.txt", "text", r"unknown kind of file '.txt'. Known: .jsonl"),
    ("a.jsonl", '{"a": "b", "c": "d"}\n', "no columns to learn from. Its columns: a, c"),
    ("a.jsonl", '{"prompt": "b"}\n', "no columns to learn from. Its columns: prompt"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_FILES)
def test_bad_files(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        check_data(JsonlConfig(train_file=str(path)))
    assert str(caught.value).startswith(f"data.train_file={path}")


def test_the_command_that_converts_a_file_works_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my data").mkdir()
    text = 'prompt;response\n"a;b";c, d\n'
    (tmp_path / "my data" / "a.csv").write_text(
        text + "".join(f"e{i};f\n" for i in range(30)), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        check_data(JsonlConfig(train_file="my data/a.csv"))
    command = str(caught.value).partition("This converts it: ")[2].replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, timeout=60)
    check_data(JsonlConfig(train_file="new.csv"))
    with open("new.csv", encoding="utf-8", newline="") as converted:
        assert list(csv.reader(converted))[:2] == [["prompt", "response"], ["a;b", "c, d"]]


@pytest.mark.parametrize("header", ["raw|clean", "text; as found", "a\tb"])
def test_one_column_may_be_called_anything(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([header, *(f"some words {i}" for i in range(30))]), encoding="utf-8")
    check_data(JsonlConfig(train_file=str(path), text_column=header))
    with pytest.raises(InputError, match="no columns to learn from"):
        check_data(JsonlConfig(train_file=str(path)))
    lines = [f'"{header}"', *(f"{header} {i}" for i in range(30))]
    path.write_text("\n".join(lines), encoding="utf-8")  # between quotes it is one name in any case
    check_data(JsonlConfig(train_file=str(path), text_column=header))


def test_missing_and_unset_files(tmp_path: Path, jsonl: WriteJsonl) -> None:
    with pytest.raises(InputError, match=r"data.train_file is not set"):
        check_data(JsonlConfig())
    with pytest.raises(InputError, match=r"data.test_file=/no/such.jsonl: no such file"):
        check_data(JsonlConfig(train_file=jsonl("a.jsonl", ROWS), test_file="/no/such.jsonl"))
    with pytest.raises(InputError, match=r"is a folder"):
        check_data(JsonlConfig(train_file=str(tmp_path)))
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"text": "Grüße"}\n'.encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 text.*as Windows-1252 it reads .*Grüße.*iconv"):
        check_data(JsonlConfig(train_file=str(latin)))
    for text in ("prompt,response\nGrüße,b\n", "prompt,Grüße\na,b\n"):
        (tmp_path / "latin.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"is not UTF-8 text.*as Windows-1252 it reads 'Grüße'.*iconv"):
            check_data(JsonlConfig(train_file=str(tmp_path / "latin.csv")))


def test_the_conversion_that_is_named_works(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt;response\n"a;b";c,d\n' * 4, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        check_data(JsonlConfig(train_file=str(tmp_path / "a.csv")))
    command = str(caught.value).partition("This converts it: ")[2]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, cwd=tmp_path, check=True)
    rows = load_file("", tmp_path / "new.csv")
    assert rows[0] == {"prompt": "a;b", "response": "c,d"}


def test_a_bad_line_beyond_the_first_look(
    tmp_path: Path, gpt2: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD * 50 + "{broken\n" + GOOD, encoding="utf-8")
    monkeypatch.setattr("distil.data.local.check_file.__defaults__", (100,))
    monkeypatch.setattr("distil.data.early.SMALL", 100)
    check_data(JsonlConfig(train_file=str(path)))
    with pytest.raises(InputError, match=r"line 51 is not a JSON object"):
        load_splits(JsonlConfig(train_file=str(path)), gpt2)


def test_missing_columns_are_named() -> None:
    columns = ["question", "answer", "id"]
    assert detect(ColumnsConfig(name="t"), columns, "rows").prompt == "question"
    with pytest.raises(
        InputError,
        match=r"data.prompt_column=q is not a column of rows. Did you mean question\? Its columns: answer",
    ):
        detect(ColumnsConfig(name="t", prompt_column="q"), columns, "rows")
    with pytest.raises(InputError, match=r"both set"):
        detect(ColumnsConfig(name="t", prompt_column="id", text_column="id"), columns, "rows")
    with pytest.raises(InputError, match=r"not a format string"):
        detect(ColumnsConfig(name="t", prompt_template="{question"), columns, "rows")


@pytest.mark.parametrize(
    ("keys", "columns", "told"),
    [
        ({"prompt_column": "instructions"}, ["instruction", "output"], "Did you mean instruction?"),
        ({"prompt_column": "Instruction"}, ["instruction", "output"], "Did you mean instruction?"),
        ({"prompt_template": "Q: {Q}"}, ["q", "answer"], "Did you mean q?"),
        ({}, ["Question", "Answer"], "Name them: data.prompt_column=Question data.response_column=Answer."),
        ({}, ["instruction", "reply"], "data.prompt_column=instruction data.response_column=NAME."),
        ({"prompt_column": "q"}, ["q", "a"], "data.prompt_column=q data.response_column=NAME."),
        (
            {"prompt_column": "answer"},
            ["answer", "a"],
            "data.prompt_column=answer data.response_column=NAME.",
        ),
        ({"prompt_template": "{q}"}, ["q", "reply"], "Name them: data.response_column=NAME."),
        ({}, ["an answer", "q"], "data.prompt_column=NAME 'data.response_column=an answer'"),
        ({}, ["conversation"], "Name it: data.messages_column=conversation."),
        (
            {},
            ["category", "question_id", "turns"],
            "Name them: data.prompt_column and data.response_column (o",
        ),
        ({}, ["Text", "id"], "Name it: data.text_column=Text."),
        ({}, ["q", "a"], "Name them: data.prompt_column and data.response_column (or data.prompt_template)"),
        ({}, [f"c{i}" for i in range(99)], "and 79 more."),
    ],
)
def test_the_column_that_was_probably_meant(keys: dict[str, str], columns: list[str], told: str) -> None:
    with pytest.raises(InputError) as caught:
        detect(ColumnsConfig(name="t", **keys), columns, "rows")  # type: ignore[arg-type]  # texts alone
    assert told in str(caught.value)
    assert "look like a row" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("What is the capital of France?,Paris\nWhat is two and two?,4\n", {}),
        ("What is two and two?,4\n1 + 1,2\n", {"prompt_column": "question"}),
        ("Say it.,Say it.\na,b\n", {}),
        ("2+2,4\n3+3,6\n", {"prompt_template": "{question}"}),
        ("name three primary colours for me now please,\na,b\n", {}),
    ],
)
def test_a_csv_without_a_header_is_told_so(text: str, keys: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        check_data(JsonlConfig(train_file=str(tmp_path / "a.csv"), **keys))
    assert "They look like a row: if that is what they are, put a line before it" in str(caught.value)
    assert "Did you mean" not in str(caught.value)


def test_blanks_around_the_names_of_a_csv_are_none_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question, answer\n" + "".join(f"{i}, {i}\n" for i in range(9)), encoding="utf-8")
    config = JsonlConfig(train_file=str(path))
    check_data(config)
    assert load_file("", path)[0] == {"question": "0", "answer": " 0"}, "cells are text as written"


def test_a_header_of_questions_is_told_its_keys_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("What is your name?,reply\nAda,42\n", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape("Name them: data.prompt_column")):
        check_data(JsonlConfig(train_file=str(tmp_path / "a.csv")))


def test_rows_to_evaluate_on_are_not_offered_for_training(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(GOOD, encoding="utf-8")
    (tmp_path / "test_rows.jsonl").write_text(GOOD, encoding="utf-8")
    for name in ("train.jsonl", "train_rows.jsonl", "none.jsonl"):
        with pytest.raises(InputError) as caught:
            check_data(JsonlConfig(train_file=str(tmp_path / name)))
        assert "Did you mean" not in str(caught.value)


def test_a_file_beside_the_one_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(GOOD, encoding="utf-8")
    for name, told in (("row.jsonl", f"Did you mean {tmp_path / 'rows.jsonl'}?"), ("no/a.csv", "no folder")):
        with pytest.raises(InputError, match=re.escape("no such file")) as caught:
            check_data(JsonlConfig(train_file=str(tmp_path / name)))
        assert told in str(caught.value).replace("Nor is there a folder", "no folder")
    for name in ("rows.csv", "rows.json"):  # of one stem: the kind that was typed is meant
        (tmp_path / name).write_text("a", encoding="utf-8")
    for name in ("row.jsonl", "row.csv", "row.json"):
        with pytest.raises(
            InputError, match=re.escape(f"Did you mean {tmp_path / name.replace('row', 'rows')}?")
        ):
            check_data(JsonlConfig(train_file=str(tmp_path / name)))


def test_what_prompts_may_be_about_is_not_left_unread_without_a_word(
    tmp_path: Path, gpt2: PreTrainedTokenizerBase
) -> None:
    rows = [
        {"ask": f"How old is {n}?", "facts": f"It is {n}.", "reply": str(n), "row_id": n, "tag": "zoo"}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    named: dict[str, Any] = {"prompt_column": "ask", "response_column": "reply"}
    config = JsonlConfig(train_file=str(tmp_path / "rows.jsonl"))
    told = "data.context_column names what a prompt is about."
    with pytest.raises(InputError, match=re.escape(told)):
        check_data(config)
    assert f"Columns that are not read: facts. {told}" in load_splits(replace(config, **named), gpt2).notes
    known = [{"question": row["ask"], "facts": row["facts"], "answer": row["reply"]} for row in rows]
    (tmp_path / "known.jsonl").write_text("\n".join(map(json.dumps, known)), encoding="utf-8")
    found = load_splits(JsonlConfig(train_file=str(tmp_path / "known.jsonl")), gpt2)
    assert f"Columns that are not read: facts. {told}" in found.notes
    whole = load_splits(replace(config, **named, context_column="facts"), gpt2)
    assert not any("not read" in note for note in whole.notes)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ("input_ids attention_mask text", Kind.TOKENS),
        ("messages prompt", Kind.MESSAGES),
        ("conversations id", Kind.MESSAGES),
        ("instruction input output", Kind.PAIR),
        ("instruction context response category", Kind.PAIR),
        ("prompt completion", Kind.PAIR),
        ("question answer text", Kind.PAIR),
        ("text id", Kind.TEXT),
    ],
)
def test_well_known_columns(columns: str, kind: Kind) -> None:
    assert detect(ColumnsConfig(name="t"), columns.split(), "rows").kind is kind


@pytest.mark.parametrize(
    ("keys", "columns", "told"),
    [
        ({"response_column": "question"}, "question answer", " Did you mean data.response_column=answer?"),
        ({"response_column": "question", "prompt_column": "question"}, "answer question", "_column=answer?"),
        (
            {"response_column": "a", "prompt_column": "a"},
            "a b",
            "the prompt's column, too. Its columns: a, b.",
        ),
        ({"response_column": "question"}, "question prompt", None),  # the other is the prompt
        ({"response_column": "answer"}, "question answer", None),
        ({"response_column": "question", "prompt_template": "Q: {a}"}, "question a", None),
    ],
)
def test_one_column_is_no_prompt_and_its_response(
    keys: dict[str, str], columns: str, told: str | None
) -> None:
    config = ColumnsConfig(name="test", **keys)  # type: ignore[arg-type]
    if told is None:
        shape = detect(config, columns.split(), "rows.csv")
        assert shape.response == keys["response_column"] != shape.prompt
        return
    with pytest.raises(
        InputError, match=re.escape(f"data.response_column={keys['response_column']} is")
    ) as error:
        detect(config, columns.split(), "rows.csv")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"context_column": "answer"}, "has no columns to learn from"),
        (
            {"context_column": "answer", "response_column": "answer"},
            "data.context_column=answer is the response's column, too",
        ),
        (
            {"context_column": "question", "prompt_column": "question"},
            "data.context_column=question is the prompt's column, too",
        ),
        (
            {"prompt_template": "{question} {answer}"},
            "names {answer}, the response's column: each prompt would hold its answer",
        ),
    ],
)
def test_no_prompt_holds_its_answer(keys: dict[str, str], told: str) -> None:
    """The student would copy it, with a loss near 0."""
    with pytest.raises(InputError, match=re.escape(told)):
        detect(ColumnsConfig(name="test", **keys), ["question", "answer"], "rows.csv")  # type: ignore[arg-type]


def test_named_columns_win_over_well_known_ones() -> None:
    shape = detect(
        ColumnsConfig(name="t", text_column="story"), ["story", "prompt", "response", "input_ids"], "rows"
    )
    assert (shape.kind, shape.text) == (Kind.TEXT, "story")
    shape = detect(ColumnsConfig(name="t", prompt_column="input"), ["input", "output", "instruction"], "rows")
    assert (shape.prompt, shape.response, shape.context) == ("input", "output", None)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"prompt_column": "b"}, "data.prompt_column and data.text_column"),
        ({"response_column": "b"}, "data.response_column and data.text_column"),
        ({"prompt_template": "{b}"}, "data.prompt_template and data.text_column"),
        ({"messages_column": "b"}, "data.messages_column and data.text_column"),
        ({"prompt_column": "b", "response_column": "b"}, "data.prompt_column and data.text_column"),
    ],
)
def test_keys_of_two_shapes_are_named(keys: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=rf"^{told} are both set: .* Set one to null"):
        detect(ColumnsConfig(name="t", text_column="a", **keys), ["a", "b"], "rows")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"prompt_column": "q", "response_column": "a", "context_column": "c"}, []),
        (
            {
                "prompt_column": "q",
                "response_column": "a",
                "context_column": "c",
                "prompt_template": "{q} {c}",
            },
            [],
        ),
        ({"response_column": "a", "context_column": "c", "prompt_template": "{q}"}, ["context"]),
        (
            {"prompt_column": "p", "response_column": "a", "context_column": "c", "prompt_template": "{q}"},
            ["prompt", "context"],
        ),
        ({"text_column": "q", "context_column": "c"}, ["context"]),
        ({"context_column": "c"}, ["context"]),
    ],
)
def test_columns_that_are_named_and_not_read_are_told(
    keys: dict[str, str], told: list[str], jsonl: WriteJsonl, gpt2: PreTrainedTokenizerBase
) -> None:
    rows = [{name: f"{name} {i}" for name in "qapc"} | {"input_ids": [i, 1, 2]} for i in range(9)]
    notes = load_splits(JsonlConfig(train_file=jsonl("a.jsonl", rows), **keys), gpt2).notes
    unread = [note for note in notes if "not read" in note]
    assert [note.partition("=")[0] for note in unread] == [f"data.{name}_column" for name in told]


class Hub(BaseHTTPRequestHandler):
    """A hub that knows one data set."""

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/api/datasets/owner/known" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As on a machine that may use the network, with an empty cache."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.ask.cache_clear()
    yield
    hub.ask.cache_clear()


@pytest.mark.usefixtures("network")
def test_hub_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        check_data(HfConfig(path="owner/known"))
        with pytest.raises(InputError, match=r"data.path=owner/unknown: the hub knows no such data set.*404"):
            check_data(HfConfig(path="owner/unknown"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(InputError, match=r"run.allow_network=false keeps the hub out"):
        check_data(HfConfig(path="owner/known"), allow_network=False)
    (tmp_path / "hub" / "datasets--owner--known" / "snapshots" / "0").mkdir(parents=True)
    check_data(HfConfig(path="owner/known"), allow_network=False)


@pytest.mark.usefixtures("network")
def test_the_token_is_shown_to_the_hub_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it keeps elsewhere is there; who keeps it learns nothing."""
    seen: dict[str, list[str | None]] = {"hub": [], "elsewhere": []}

    class Elsewhere(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen["elsewhere"].append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()

    class Redirecting(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen["hub"].append(self.headers.get("Authorization"))
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{other.server_port}/file")
            self.end_headers()

    other, server = HTTPServer(("127.0.0.1", 0), Elsewhere), HTTPServer(("127.0.0.1", 0), Redirecting)
    threads = [threading.Thread(target=each.serve_forever, daemon=True) for each in (other, server)]
    for thread in threads:
        thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    try:
        assert hub.ask("org/model/resolve/main/config.json") == 200
    finally:
        for each in (other, server):
            each.shutdown()
            each.server_close()
    assert seen["hub"] == ["Bearer hf_secret"]
    assert [word for word in seen["elsewhere"] if word] == []


@pytest.mark.usefixtures("network")
def test_a_forbidden_network_is_not_asked_for_rows_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    class Listening(Hub):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            super().do_HEAD()

        do_GET = do_HEAD

    server = HTTPServer(("127.0.0.1", 0), Listening)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    (tmp_path / "hub" / "datasets--owner--known" / "snapshots" / "0").mkdir(parents=True)
    try:
        with pytest.raises(InputError, match=r"data.path=owner/known cannot be loaded"):
            source_of(HfConfig(path="owner/known")).rows(allow_network=False)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert asked == []


@pytest.mark.usefixtures("network")
def test_a_silent_hub_is_given_up_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(InputError, match=r"the hub does not answer, nor is it in the local cache"):
            check_data(Dolly15kConfig())
        with pytest.raises(InputError, match=r"the hub does not answer"):
            check_data(Dolly15kConfig())
        assert time.monotonic() - start < 5


@pytest.mark.usefixtures("network")
def test_offline_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE keeps the hub out"):
        check_data(Dolly15kConfig())


def test_paths_that_are_no_hub_names() -> None:
    for path in ("./missing", "/no/such/folder", "a/b/c", "missing.jsonl"):
        with pytest.raises(InputError, match=r"no such file or folder"):
            check_data(HfConfig(path=path))
    with pytest.raises(InputError, match=r"data.path is not set"):
        check_data(HfConfig())
