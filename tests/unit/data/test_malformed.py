"""Malformed rows: refused by line, or left out as if they had never been there."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from distil.data.base import check_data
from distil.data.hf import HfConfig
from distil.data.jsonl import JsonlConfig
from distil.data.local import load_file
from distil.data.splits import Splits, load_splits
from distil.results import write_bad_rows
from distil.types import InputError

GOOD = [{"prompt": f"say {i}", "response": f"{i} is said"} for i in range(40)]
DEEP = "[" * 5000 + "]" * 5000
BAD_LINES = [
    (b"not json", "is not a JSON object: 'not json' (Expecting value"),
    (b'{"prompt": "a", ', "is not a JSON object: "),
    (b"[1, 2]", "is not a JSON object: '[1, 2]'"),
    (b"null", "is not a JSON object: 'null'"),
    (b'{"prompt": "a\x00b", "response": "c"}', "(Invalid control character at its character 14)"),
    (b'{"prompt": "a", "response": "b', "(it ends inside a text, at its character "),
    (b'{"prompt": "gr\xfc\xdfe", "response": "c"}', "is not UTF-8 text: invalid start byte at its byte 14"),
    (b'{"prompt": "\\ud83d", "response": "c"}', "holds half of a surrogate pair"),
    (b'{"prompt": "a", "response": "b", "\\udc00": 1}', "holds half of a surrogate pair"),
    (b'{"prompt": "a", "prompt": "b", "response": "c"}', "the key 'prompt' is there twice"),
    (f'{{"prompt": "a", "response": {DEEP}}}'.encode(), "is nested"),
    (f'{{"prompt": "a", "response": {"[" * 150 + "]" * 150}}}'.encode(), "is nested more than 100 deep"),
    (
        b'{"prompt": "a", "response": ' + b'[{"a": ' * 60 + b"1" + b"}]" * 60 + b"}",
        "is nested more than 100 deep",
    ),
    (b'{"prompt": "a", "response": ' + b"9" * 5000 + b"}", "Exceeds the limit (4300 digits)"),
    (b'{"prompt": "a", "response": 1e999}', "column response holds inf, not text"),
    (b'{"prompt": {"a": 1}, "response": "b"}', "column prompt holds dict values, not text"),
    (b'{"prompt": "a", "response": [{"b": 1}]}', "column response holds dict values, not text"),
    (b'{"prompt": "a", "response": "b", "slots": "no json"}', "slots is no JSON object"),
    (b'{"prompt": "a", "response": "b", "log_probability": "much"}', "log_probability is no number"),
]
BAD_CSV = [
    (b"a,b,c", "has 3 fields, the header 2"),
    (b"a", "has 1 field, the header 2"),
    (b'"a" b,c', "is not CSV"),
    (b"gr\xfc\xdfe,c", "is not UTF-8 text"),
]


def content(splits: Splits) -> list[list[dict[str, Any]]]:
    """Rows without their numbers in the source, and without columns that none of them fills."""
    return [
        [
            {key: value for key, value in row.items() if key != "row" and value is not None}
            for row in part.to_list()
        ]
        for part in (splits.train, splits.validation, splits.test)
    ]


def lines_of(rows: list[dict[str, Any]], suffix: str) -> list[bytes]:
    if suffix == ".csv":
        return [f"{row['prompt']},{row['response']}".encode() for row in rows]
    return [json.dumps(row).encode() for row in rows]


def turns(said: str) -> list[dict[str, str]]:
    """A chat of two turns."""
    return [{"role": "user", "content": said}, {"role": "assistant", "content": "b"}]


def write(path: Path, lines: list[bytes]) -> JsonlConfig:
    head = [b"prompt,response"] if path.suffix == ".csv" else []
    path.write_bytes(b"\n".join([*head, *lines]) + b"\n")
    return JsonlConfig(train_file=str(path), on_bad_row="skip", max_train_rows=20)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_skipped_rows_leave_no_trace(suffix: str, tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    """The same rows in the same splits as without the bad lines; those are counted and told by line."""
    bad = BAD_CSV if suffix == ".csv" else BAD_LINES
    clean = load_splits(write(tmp_path / f"clean{suffix}", lines_of(GOOD, suffix)), gpt2)
    lines: list[bytes] = lines_of(GOOD, suffix)
    for line, _ in random.Random(0).sample(bad, len(bad)):
        lines.insert(random.Random(line).randrange(len(lines)), line)
    lines.insert(3, b"")
    config = write(tmp_path / f"mixed{suffix}", lines)
    check_data(config)
    mixed = load_splits(config, gpt2)
    assert content(mixed) == content(clean)
    assert mixed.dropped == {"malformed": len(bad)}
    first = 2 if suffix == ".csv" else 1
    wanted = [(number, line) for number, line in enumerate(lines, first) if line in dict(bad)]
    assert [row.line for row in mixed.bad_rows] == [number for number, _ in wanted]
    for row, (_, line) in zip(mixed.bad_rows, wanted, strict=True):
        assert dict(bad)[line] in row.why
    real = [line for line in lines if line]
    for part in (mixed.train, mixed.validation, mixed.test):
        for row in part:
            assert row["prompt"].encode() in real[row["row"]], "row is the number in the source"


@pytest.mark.parametrize(
    ("suffix", "line", "message"),
    [*((".jsonl", *case) for case in BAD_LINES), *((".csv", *case) for case in BAD_CSV)],
)
def test_a_refusal_names_the_line(
    suffix: str, line: bytes, message: str, tmp_path: Path, gpt2: PreTrainedTokenizerBase
) -> None:
    config = write(tmp_path / f"a{suffix}", [*lines_of(GOOD[:3], suffix), b"", line])
    config.on_bad_row = "refuse"

    def use() -> None:
        check_data(config)
        load_splits(config, gpt2)

    with pytest.raises(InputError) as refused:
        use()
    said = str(refused.value)
    assert said.startswith(f"data.train_file={config.train_file}")
    assert f"line {6 if suffix == '.csv' else 5}" in said
    assert message in said
    assert said.endswith("data.on_bad_row=skip leaves out such rows and lists them.")


def test_nothing_but_malformed_rows(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    config = write(tmp_path / "a.jsonl", [b"no", b"nor this"])
    with pytest.raises(InputError, match=r"holds only malformed rows: line 1 is not a JSON object: 'no'"):
        check_data(config)
    config = write(tmp_path / "b.jsonl", [b'{"prompt": {}, "response": "b"}'] * 9)
    with pytest.raises(InputError, match=r"holds only malformed rows: .* line 1 column prompt holds dict"):
        load_splits(config, gpt2)


def test_chats_and_tokens(
    tmp_path: Path, chatml: PreTrainedTokenizerBase, gpt2: PreTrainedTokenizerBase
) -> None:
    chats: list[Any] = [
        *map(turns, "abcdef"),
        "text",
        [{"role": "nobody", "content": "a"}],
        [1],
        [{"role": "user"}],
    ]
    for column, cells, tokenizer in (
        ("messages", chats, chatml),
        ("input_ids", [*([1, 2, i] for i in range(6)), "text", [1, 10**30], [1.5], [[1]]], gpt2),
    ):
        rows = [{column: cell} for cell in cells]
        config = write(tmp_path / f"{column}.jsonl", [json.dumps(row).encode() for row in rows])
        splits = load_splits(config, tokenizer)
        assert [row.line for row in splits.bad_rows] == [7, 8, 9, 10], column
        config.on_bad_row = "refuse"
        with pytest.raises(InputError, match=rf"line 7.*{column}"):
            load_splits(config, tokenizer)


@pytest.mark.parametrize(
    "extra", [{"messages": "text"}, {"messages": [1]}, {"input_ids": "text"}, {"input_ids": [-5]}]
)
def test_a_row_that_is_left_out_has_no_say_in_the_columns(
    extra: dict[str, Any], tmp_path: Path, gpt2: PreTrainedTokenizerBase, chatml: PreTrainedTokenizerBase
) -> None:
    lines = lines_of(GOOD, ".jsonl")
    for tokenizer in (gpt2, chatml):
        alone = load_splits(write(tmp_path / "a.jsonl", lines), tokenizer)
        config = write(tmp_path / "b.jsonl", [*lines, json.dumps(GOOD[0] | extra).encode()])
        check_data(config)
        mixed = load_splits(config, tokenizer)
        assert content(mixed) == content(alone)
        assert [row.line for row in mixed.bad_rows] == [41]


def test_a_template_that_refuses_a_prompt_names_its_line(tmp_path: Path) -> None:
    from tests.unit.data.conftest import byte_tokenizer

    strict = byte_tokenizer(
        "{% for m in messages %}{% if m['content'] == 'refused' %}{{ raise_exception('no') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rows = [{"prompt": "", "response": "dropped"}, *GOOD, {"prompt": "refused", "response": "x"}]
    config = write(tmp_path / "a.jsonl", lines_of(rows, ".jsonl"))
    config.max_train_rows = None
    splits = load_splits(config, strict)
    assert [row.line for row in splits.bad_rows] == [42]
    assert splits.dropped == {"malformed": 1, "empty prompt": 1}
    config.on_bad_row = "refuse"
    with pytest.raises(InputError, match=r"a.jsonl, line 42: the tokenizer's chat template refuses"):
        load_splits(config, strict)


def test_a_template_that_refuses_a_turn_names_its_line(tmp_path: Path) -> None:
    from tests.unit.data.conftest import byte_tokenizer

    strict = byte_tokenizer(
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    bad = [{"role": "tool", "content": "a"}, *turns("b")]
    rows = [{"messages": each} for each in (turns("a"), turns("b"), bad, turns("c"), turns("d"))]
    config = write(tmp_path / "a.jsonl", [json.dumps(row).encode() for row in rows])
    assert [row.line for row in load_splits(config, strict).bad_rows] == [3]
    config.on_bad_row = "refuse"
    with pytest.raises(InputError, match=r"line 3: the tokenizer's chat template refuses turns by tool"):
        load_splits(config, strict)


def test_sources_without_lines_tell_the_row(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    from datasets import Dataset

    rows = [{"input_ids": [1, 2, i]} for i in range(6)] + [{"input_ids": [1, 10**6]}]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    splits = load_splits(HfConfig(path=str(tmp_path / "saved"), on_bad_row="skip"), gpt2)
    assert [row.record()["row"] for row in splits.bad_rows] == [6]
    assert "line" not in splits.bad_rows[0].record()
    (tmp_path / "list.json").write_text(json.dumps([*GOOD[:5], 3]))
    splits = load_splits(JsonlConfig(train_file=str(tmp_path / "list.json"), on_bad_row="skip"), gpt2)
    assert [row.why for row in splits.bad_rows] == ["is not a JSON object: '3'"]
    with pytest.raises(InputError, match=r"row 5 is not a JSON object: '3'"):
        load_splits(JsonlConfig(train_file=str(tmp_path / "list.json")), gpt2)


def test_the_run_directory_lists_them_and_the_log_warns_once(
    tmp_path: Path, gpt2: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [*lines_of(GOOD, ".jsonl"), b"\x1b[2J\xff", b"nor this"]
    splits = load_splits(write(tmp_path / "a.jsonl", lines), gpt2)
    with caplog.at_level(logging.WARNING):
        write_bad_rows(tmp_path, splits.bad_rows)
    (said,) = caplog.messages
    assert said.startswith(f"2 malformed rows are left out ({tmp_path}/bad_rows.jsonl lists them)")
    listed = [json.loads(line) for line in (tmp_path / "bad_rows.jsonl").read_text().splitlines()]
    assert [(one["line"], one["row"]) for one in listed] == [(41, 40), (42, 41)]
    assert all(one["where"] == f"data.train_file={tmp_path}/a.jsonl" for one in listed)
    write_bad_rows(tmp_path, [])
    assert not (tmp_path / "bad_rows.jsonl").exists()


# ---- odd but right


def responses(path: Path, data: bytes, tokenizer: PreTrainedTokenizerBase, **keys: Any) -> list[str]:
    """What is trained on of a file, in order."""
    path.write_bytes(data)
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), str(path))
    splits = load_splits(JsonlConfig(**files, **keys), tokenizer)
    for row in splits.train:
        answer = row["input_ids"][len(row["prompt_ids"]) : -1]
        assert tokenizer.decode(answer) == row["response"], "the tokens are those of the text"
    return list(splits.train["response"])


ODD = "\x01\x7f\x85\u2028\u200b\ufeff\ufffd\uffff\U0001f642\U0010ffff e\u0301 \u202e \r\n\t"


def test_text_of_every_plane_is_trained_on_as_it_is(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    rows = [{"prompt": "a\0b", "response": text + "."} for text in (ODD, "\0", "x" * 100_000)]
    for form in (True, False):
        data = b"".join(json.dumps(row, ensure_ascii=form).encode() + b"\n" for row in rows)
        read = responses(tmp_path / "a.jsonl", data, gpt2, max_length=200_000)
        assert read == [row["response"] for row in rows]


def test_spellings_of_one_file(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    """A byte order mark, Windows' line ends, blank lines, no last line break: the same rows."""
    for suffix in (".jsonl", ".csv"):
        head = [b"prompt,response"] if suffix == ".csv" else []
        lines = [*head, *lines_of(GOOD[:4], suffix)]
        plain = b"\n".join(lines) + b"\n"
        for data in (
            plain, b"\xef\xbb\xbf" + plain, plain.replace(b"\n", b"\r\n"), plain.replace(b"\n", b"\n\n"),
            plain[:-1],
        ):  # fmt: skip
            read = responses(tmp_path / f"a{suffix}", data, gpt2)
            assert read == [row["response"] for row in GOOD[:4]], data


def test_numbers_keep_their_spelling(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    """Columns of mixed types, integers beyond 64 bits: what a reader of typed columns would round."""
    cells = ["1", "2.5", "12345678901234567890123", '"007"', "[3, 4]", "-0.0"]
    data = "".join(f'{{"prompt": 7, "response": {cell}}}\n' for cell in cells).encode()
    read = responses(tmp_path / "a.jsonl", data, gpt2)
    assert read == ["1", "2.5", "12345678901234567890123", "007", "3", "-0.0"]


def test_empty_cells_are_dropped_and_counted(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    cells = ['"a"', '""', "null", "NaN", "[]", '"\u3000"', '"b"', '"c"', '"d"']
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"prompt": "p", "response": {cell}}}\n' for cell in cells))
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), str(path))
    splits = load_splits(JsonlConfig(**files), gpt2)
    assert splits.dropped == {"empty response": 15}
    assert splits.train["response"][:] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json"])
def test_other_encodings_are_named(suffix: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes('[{"prompt": "a"}]'.encode(encoding))
    for how in ("refuse", "skip"):
        with pytest.raises(InputError, match=r"looks like UTF-16 or UTF-32 text. Convert it to UTF-8"):
            check_data(JsonlConfig(train_file=str(path), on_bad_row=how))


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,response\na,b\n"c,d\ne,f\n')
    with pytest.raises(InputError, match=r"line 3 is not CSV: unexpected end of data"):
        load_file("rows", path)


@pytest.mark.parametrize(
    ("stray", "closing", "last", "fault"),
    [
        ('"row 9,said', "row 499,said", 1000, "unexpected end of data"),
        ('"row 9,said', '"row 499",said', 500, "',' expected after '\"'"),
        ('"row 9,said', 'row 499,said"', 500, "has 1 field, the header 2"),
    ],
)
def test_a_stray_quote_is_no_row_to_leave_out(
    stray: str, closing: str, last: int, fault: str, tmp_path: Path
) -> None:
    """It takes in the rows that follow, which nobody asked to leave out."""
    lines = ["prompt,response", *(f"row {number},said" for number in range(1, 1000))]
    lines[9], lines[499] = stray, closing
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    for how in ("refuse", "skip"):
        with pytest.raises(InputError) as refused:
            check_data(JsonlConfig(train_file=str(path), on_bad_row=how))
        assert f"line 10 {'' if 'field,' in fault else 'is not CSV: '}{fault}" in str(refused.value)
        assert f"lines 10 to {last} together" in str(refused.value)
        assert "on_bad_row" not in str(refused.value)


def test_a_prompt_template_holds_names_of_columns_only(tmp_path: Path, gpt2: PreTrainedTokenizerBase) -> None:
    data = b'{"a.b": "x", "response": "y"}\n' * 3
    keys = {"response_column": "response", "prompt_template": "<{a.b}{{}}>"}
    assert responses(tmp_path / "a.jsonl", data, gpt2, **keys) == ["y"] * 3
    for template in ("{response:1000000000}", "{response!r}"):
        with pytest.raises(InputError, match=r"without ':' or '!'"):
            check_data(JsonlConfig(train_file=str(tmp_path / "a.jsonl"), prompt_template=template))


CELLS = st.one_of(st.text(), st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.text()))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.text(), CELLS), min_size=1, max_size=9))
def test_any_cell_is_text_or_said_to_be_none(
    tmp_path: Path, gpt2: PreTrainedTokenizerBase, cells: list[tuple[str, Any]]
) -> None:
    """Whatever JSON can hold: each row is trained on, dropped with a reason, or listed."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in cells))
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), str(path))
    try:
        splits = load_splits(JsonlConfig(**files, on_bad_row="skip"), gpt2)
    except InputError as error:
        if "malformed" not in str(error) and "no train row has a scored token" not in str(error):
            raise
        return
    assert 3 * len(splits.train) + sum(splits.dropped.values()) == 3 * len(cells)
