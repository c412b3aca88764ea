"""A prompt of one's own becomes the very ids that a row of the run's data with that prompt generates from."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from distil.data.base import ColumnsConfig
from distil.data.columns import Kind, Shape, is_written_by, renamed
from distil.data.jsonl import JsonlConfig
from distil.data.prompting import ending_of, likely_shape, prompt_rows
from distil.data.splits import encode_rows, load_splits
from distil.data.turns import as_conversation, as_turns, in_turns, system_of
from distil.types import InputError
from tests.unit.data.conftest import WriteJsonl

ASKED = "Say hello to <|im_end|> Ann."
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prompt": ({"prompt": ASKED, "response": "Hello."}, {}),
    "instruction": ({"instruction": ASKED, "response": "Hello."}, {}),
    "context": ({"instruction": ASKED, "context": "", "output": "Hello."}, {}),
    "template": ({"q": ASKED, "a": "Hello."}, {"prompt_template": "Q: {q}\nA: ", "response_column": "a"}),
    "twice": ({"q": ASKED, "a": "Hello."}, {"prompt_template": "{q}\nAgain: {q}", "response_column": "a"}),
    "messages": (
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "Hello."}]},
        {},
    ),
}
GONE = {
    "prompt": {},
    "instruction": {},
    "context": {},
    "template": {},
    "twice": {},
    "messages": {"messages_column": "messages"},
}
"""What a config must name for the shape to be known where no record of it is left."""


@pytest.mark.parametrize("tokenizer", ["gpt2", "stories", "chatml"])
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("recorded", [True, False])
def test_the_ids_are_those_of_a_row(
    kind: str, tokenizer: str, recorded: bool, jsonl: WriteJsonl, request: pytest.FixtureRequest
) -> None:
    reader: PreTrainedTokenizerBase = request.getfixturevalue(tokenizer)
    if kind == "messages" and tokenizer != "chatml":
        pytest.skip("chat messages need a chat template")
    row, keys = ROWS[kind]
    asked = [json.loads(json.dumps(row).replace("Ann", name)) for name in ("Ann", "Bob", "Eve")]
    file = jsonl("rows.jsonl", asked)
    config = JsonlConfig(train_file=file, **{**keys, **({} if recorded else GONE[kind])})
    (encoded, _) = encode_rows(config, [row], reader, "rows")
    shape = likely_shape(config, [encoded[0]["prompt"]])
    if recorded:
        told = json.dumps(load_splits(config, reader).shape.record())
        shape = Shape.read(json.loads(told)) or shape
        assert json.dumps(shape.record()) == told
    (mine,) = prompt_rows(config, shape, reader, [ASKED])
    assert mine["prompt_ids"] == encoded[0]["prompt_ids"]


@pytest.mark.parametrize("told", [None, {}, "text", {"kind": "none"}, {"kind": "text", "colour": "red"}])
def test_what_is_no_record_of_a_shape_is_none(told: Any) -> None:
    assert Shape.read(told) is None


@pytest.mark.parametrize("tokenizer", ["gpt2", "stories", "chatml"])
def test_text_is_gone_on_from_as_it_stands(
    tokenizer: str, jsonl: WriteJsonl, request: pytest.FixtureRequest
) -> None:
    reader: PreTrainedTokenizerBase = request.getfixturevalue(tokenizer)
    text = "Once upon a time there was a small dog who liked to run."
    config = JsonlConfig(train_file=jsonl("rows.jsonl", [{"text": text}] * 3))
    (mine,) = prompt_rows(config, Shape(Kind.TEXT, text="text"), reader, [text])
    encoded, _ = encode_rows(config, [{"text": text}], reader, "rows")
    assert [*mine["prompt_ids"], reader.eos_token_id] == encoded[0]["input_ids"]


def test_a_closing_line_break_is_added_where_all_rows_have_one(gpt2: PreTrainedTokenizerBase) -> None:
    assert ending_of(["a\n", "b c\n", "d \n"]) == "\n"
    assert ending_of(["a\n\n", "b\n\n"]) == "\n\n"
    assert ending_of(["a\n", "b"]) == ending_of([]) == ending_of(["a.", "b."]) == ""
    config = JsonlConfig(train_file="nowhere.jsonl")
    shape = likely_shape(config, ["a\n"])
    with_it, without = prompt_rows(config, shape, gpt2, ["Say a.\n", "Say a."], "\n")
    assert with_it["prompt_ids"] == without["prompt_ids"] == gpt2("Say a.\n")["input_ids"]


def test_rows_of_a_file_are_closed_as_typed_prompts_are(gpt2: PreTrainedTokenizerBase) -> None:
    """One owner for ``generate`` and ``evaluate --data``: rows of a file and prompts become the same ids."""
    prompts = ["Say a.", "Say a.\n", "Say a.\n\n", "a\n b"]
    for name in ("prompt", "instruction"):  # the second has headings, which say where it ends
        rows = [{name: prompt, "response": "a"} for prompt in prompts]
        config = JsonlConfig(train_file="nowhere.jsonl", score="response")
        encoded, _ = encode_rows(config, rows, gpt2, "rows", "\n\n")
        shape = Shape(Kind.PAIR, name, "response", headings=name != "prompt")
        typed = prompt_rows(config, shape, gpt2, prompts, "\n\n")
        assert [row["prompt_ids"] for row in encoded] == [row["prompt_ids"] for row in typed]
        assert (typed[0] == typed[1] | {"prompt": typed[0]["prompt"]}) == (name == "prompt")
        assert [row["prompt_ids"] == gpt2("Say a.\n\n")["input_ids"] for row in typed] == [
            name == "prompt"
        ] * 3 + [False]


@pytest.mark.parametrize("tokenizer", ["gpt2", "chatml"])
@pytest.mark.parametrize("name", ["prompt", "question"])
def test_a_context_is_written_as_that_of_a_row(
    name: str, tokenizer: str, request: pytest.FixtureRequest
) -> None:
    reader: PreTrainedTokenizerBase = request.getfixturevalue(tokenizer)
    config = JsonlConfig(train_file="nowhere.jsonl")
    row = {name: "Where is it?", "context": "It is at home.", "response": "At home."}
    (encoded, _) = encode_rows(config, [row], reader, "rows")
    for context in ("context", None):  # None: no record of it is left
        shape = Shape(Kind.PAIR, name, "response", context, headings=name == "question")
        (asked,) = prompt_rows(config, shape, reader, ["Where is it?"], context="It is at home.")
        assert asked["prompt_ids"] == encoded[0]["prompt_ids"]
    for other in (Shape(Kind.TEXT, text="text"), Shape(Kind.MESSAGES, messages="messages")):
        with pytest.raises(InputError, match="--context: the prompts of this run are written from"):
            prompt_rows(config, other, reader, ["Where is it?"], context="It is at home.")


def test_a_prompt_that_has_its_headings_gets_no_others(gpt2: PreTrainedTokenizerBase) -> None:
    """As the samples of a run show it, which is what people paste."""
    config = JsonlConfig(train_file="nowhere.jsonl")
    row = {"question": "Where is it?", "context": "It is at home.", "answer": "At home."}
    (encoded, _) = encode_rows(config, [row], gpt2, "rows")
    shape, shown = Shape(Kind.PAIR, "question", "answer", "context", headings=True), encoded[0]["prompt"]
    for pasted in (shown, shown.rstrip("\n")):
        (asked,) = prompt_rows(config, shape, gpt2, [pasted])
        assert asked["prompt_ids"] == encoded[0]["prompt_ids"]
        assert asked["headed"]
    (plain,) = prompt_rows(config, replace(shape, headings=False), gpt2, [shown])
    assert not plain["headed"]


TURNS = {
    "system": [("system", "Be kind.\nVery."), ("user", ASKED)],
    "several": [("user", "Hi."), ("assistant", "Hello:\n user: no"), ("user", "Who?")],
    "all": [("system", ""), ("user", "a\n"), ("assistant", "b"), ("tool", "c"), ("user", "d\n\n")],
}


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_a_prompt_that_is_written_in_turns_is_taken_as_these(
    turns: list[tuple[str, str]], chatml: PreTrainedTokenizerBase
) -> None:
    """As the samples of a run show it: they become the ids of the row."""
    config = JsonlConfig(train_file="nowhere.jsonl")
    messages = [{"role": role, "content": content} for role, content in turns]
    assert as_turns(as_conversation(messages)) == messages
    row = {"messages": [*messages, {"role": "assistant", "content": "Ann."}]}
    (encoded, _) = encode_rows(config, [row], chatml, "rows")
    shape = Shape(Kind.MESSAGES, messages="messages")
    (asked,) = prompt_rows(config, shape, chatml, [encoded[0]["prompt"]], turns=True)
    assert asked["prompt_ids"] == encoded[0]["prompt_ids"]
    assert asked["headed"]


@pytest.mark.parametrize(
    "text", ["Who?", "user: Who?", "Note: a\nuser: b", "user: a\nassistant: b", "a user: b"]
)
def test_a_prompt_that_is_no_turns_is_one_of_the_user(text: str) -> None:
    assert as_turns(text) == [{"role": "user", "content": text}]


def test_a_system_message_goes_before_the_prompt(chatml: PreTrainedTokenizerBase) -> None:
    config, shape = JsonlConfig(train_file="nowhere.jsonl"), Shape(Kind.MESSAGES, messages="messages")
    (whole,) = prompt_rows(config, shape, chatml, ["system: Be kind.\nuser: Who?"], turns=True)
    (given,) = prompt_rows(config, shape, chatml, ["Who?"], system="Be kind.")
    assert given["prompt_ids"] == whole["prompt_ids"]
    assert (given["headed"], whole["headed"]) == (False, True)
    with pytest.raises(InputError, match="--system: the prompt begins with a system message of its own"):
        prompt_rows(config, shape, chatml, [whole["prompt"]], system="Be kind.", turns=True)
    with pytest.raises(InputError, match=r"--system: .* written from a prompt column, without such"):
        prompt_rows(config, Shape(Kind.PAIR, "prompt", "response"), chatml, ["Who?"], system="Be kind.")


def test_a_log_is_one_message_where_no_prompt_of_the_run_had_turns(chatml: PreTrainedTokenizerBase) -> None:
    config, shape = JsonlConfig(train_file="nowhere.jsonl"), Shape(Kind.MESSAGES, messages="messages")
    log = "user: error at\nuser: root"
    (encoded, _) = encode_rows(config, [{"prompt": log, "response": "a"}], chatml, "rows")
    (asked,) = prompt_rows(config, shape, chatml, [log], turns=in_turns(["Who?", "What?"]))
    assert asked["prompt_ids"] == encoded[0]["prompt_ids"]
    assert not asked["headed"]
    assert in_turns(["Who?", "user: a\nassistant: b\nuser: c"])
    assert in_turns([]), "a run without samples may have been of any"


def test_turns_that_a_template_refuses_are_told_as_those_of_the_prompt(
    chatml: PreTrainedTokenizerBase,
) -> None:
    reader = copy.deepcopy(chatml)
    assert isinstance(reader.chat_template, str)
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    reader.chat_template = refuses + reader.chat_template
    config, shape = JsonlConfig(train_file="nowhere.jsonl"), Shape(Kind.MESSAGES, messages="messages")
    with pytest.raises(
        InputError, match=r"^--prompt.* refuses turns by system, user.*: no system\. Ask without --system"
    ):
        prompt_rows(config, shape, reader, ["Who?"], system="Be kind.")


def test_the_system_message_that_all_prompts_have() -> None:
    one, other = "system: Be kind.\nuser: Who?", "developer: Be short.\nuser: What?"
    assert system_of([one, other]) == "Be kind."
    assert system_of([one, "Who?"]) is system_of([]) is system_of(["user: a\nsystem: b"]) is None


TEMPLATES = {
    "several": ("Q: {ask} F: {facts}\nA: ", {"ask": "Who?", "facts": "Ann did."}),
    "one": ("Q: {ask}\nA:", {"ask": "Who?\nWho?"}),
    "chat": ("Answer: {ask}", {"ask": "Who?"}),
}


@pytest.mark.parametrize(("template", "row"), TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("tokenizer", ["gpt2", "chatml"])
def test_a_prompt_that_has_the_words_of_its_template_gets_no_others(
    template: str, row: dict[str, str], tokenizer: str, request: pytest.FixtureRequest
) -> None:
    """As the samples of a run show it; a bare one is written by a template of one column."""
    reader: PreTrainedTokenizerBase = request.getfixturevalue(tokenizer)
    config = JsonlConfig(train_file="nowhere.jsonl", prompt_template=template)
    shape = Shape(Kind.PAIR, None, "response", template=template)
    (encoded, _) = encode_rows(config, [row | {"response": "Ann."}], reader, "rows")
    for pasted in (encoded[0]["prompt"], encoded[0]["prompt"].rstrip()):
        (asked,) = prompt_rows(config, shape, reader, [pasted])
        assert asked["prompt_ids"] == encoded[0]["prompt_ids"]
        assert asked["headed"]
    if "facts" not in row:
        (asked,) = prompt_rows(config, shape, reader, [row["ask"]])
        assert asked["prompt_ids"] == encoded[0]["prompt_ids"]
        assert not asked["headed"]
    with pytest.raises(
        InputError, match=r"--context: .* by data\.prompt_template=.* Write the whole prompt so"
    ):
        prompt_rows(config, shape, reader, ["Who?"], context="Ann did.")


@pytest.mark.parametrize("template", ["{q}", "{q}\n", "{q}?"])
def test_a_template_without_words_is_in_no_prompt(template: str) -> None:
    assert not is_written_by(template, "Who?")


@pytest.mark.parametrize(
    ("template", "prompt", "written"),
    [
        ("{q} {more}", "Who?", False),
        ("{context}\n\n{q}\n", "It is 1.\n\nWhat is 1?", True),
        ("Q: {q}\nContext: {c}", "Q: Who?\nContext: Ann.", True),
        ("Q: {q}\nContext: {c}", "Q: Who?\nContext: ", True),
        ("Q: {q}\nContext: {c}", "Q: Who?\nContext:", True),
        ("Q: {q}\nContext: {c}", "Q: Who?", False),
        (">>> {q}\n<<< ", ">>> Who?\n<<<", True),
        (">>> {q}\n<<< ", "Who?", False),
        ("{q} {q} A: ", "Who? Who? A:", True),
        ("a{q}a", "a", False),
        ("fixed", "fixed\n", True),
        ("{a} {b} {c}. Answer:", "x " * 5000, False),
    ],
)
def test_what_a_template_writes_is_known_by_its_own_text(template: str, prompt: str, written: bool) -> None:
    assert is_written_by(template, prompt) == written


def test_what_is_no_prompt(gpt2: PreTrainedTokenizerBase) -> None:
    config = JsonlConfig(train_file="nowhere.jsonl", prompt_template="{q} {more}", response_column="a")
    shape = likely_shape(config, [])
    with pytest.raises(InputError, match=r"several columns \(q, more\)"):
        prompt_rows(config, shape, gpt2, ["What?"])
    plain = ColumnsConfig(name="test")
    shape = likely_shape(JsonlConfig(train_file="nowhere.jsonl"), [])
    with pytest.raises(InputError, match="empty prompt"):
        prompt_rows(plain, shape, gpt2, ["ok", "  "])


def test_rows_of_a_file_are_those_of_a_split(gpt2: PreTrainedTokenizerBase, jsonl: WriteJsonl) -> None:
    """``encode_rows`` against the test split of the same file; what is dropped is counted once."""
    rows = [{"prompt": f"Say {n}.", "response": f"{n} it is."} for n in range(7)]
    rows.insert(3, {"prompt": "Say nothing.", "response": ""})
    file = jsonl("rows.jsonl", rows)
    encoded, notes = encode_rows(JsonlConfig(train_file=file), rows, gpt2, "rows")
    split = load_splits(JsonlConfig(train_file=file, validation_file=file, test_file=file), gpt2).test
    assert encoded.to_list() == split.to_list()
    assert notes == ["Rows left out: 1 empty response."]


def test_a_column_of_a_template_goes_by_another_name() -> None:
    """Braces that are text stay text."""
    assert renamed("Fill {{q}} with: {q}, {more}: {q}\n", "q", "ask") == (
        "Fill {{q}} with: {ask}, {more}: {ask}\n"
    )
    assert renamed("}}{q}{{", "q", "q") == "}}{q}{{"
