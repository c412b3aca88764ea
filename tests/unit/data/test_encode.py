"""Rows to tokens: what is scored is the response and its EOS, nothing else, whatever the row's shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from distil.data.base import ColumnsConfig
from distil.data.columns import detect
from distil.data.encode import Encoder
from distil.data.encoded import Dropped, Encoded, shorten
from distil.types import IGNORE_INDEX, InputError


def encode(
    rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, **keys: Any
) -> list[Encoded | Dropped]:
    config = ColumnsConfig(name="test", **keys)
    shape = detect(config, list(rows[0]), "rows")
    return Encoder(config, shape, tokenizer, "rows").encode(rows, range(len(rows)))


def one(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, **keys: Any) -> Encoded:
    (encoded,) = encode([row], tokenizer, **keys)
    assert isinstance(encoded, Encoded), encoded
    assert len(encoded.ids) == len(encoded.labels)
    assert encoded.labels[0] == IGNORE_INDEX
    assert all(
        label in (IGNORE_INDEX, token) for label, token in zip(encoded.labels, encoded.ids, strict=True)
    )
    assert 0 < encoded.prompt <= len(encoded.ids)
    return encoded


def scored(row: Encoded) -> list[int]:
    return [label for label in row.labels if label != IGNORE_INDEX]


PAIR = {"prompt": "Say hello.\n", "response": "Hello, world! Grüß dich 🙂"}


@pytest.mark.parametrize("name", ["gpt2", "stories", "chatml"])
def test_scored_labels_are_the_response_and_its_eos(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    row = one(PAIR, tokenizer)
    ids = scored(row)
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]).strip() == PAIR["response"]
    assert row.ids[row.prompt :] == ids, "everything after the prompt is scored, nothing before"
    assert PAIR["prompt"].strip() in tokenizer.decode(row.ids[: row.prompt])


def test_prompt_and_response_are_tokenised_apart(gpt2: PreTrainedTokenizerBase) -> None:
    row = one({"prompt": "un", "response": "happy"}, gpt2)
    assert row.ids == [*gpt2("un")["input_ids"], *gpt2("happy")["input_ids"], gpt2.eos_token_id]


def test_bos_stands_at_the_start_only(stories: PreTrainedTokenizerBase) -> None:
    row = one(PAIR, stories)
    assert row.ids[0] == stories.bos_token_id
    assert row.ids[: row.prompt] == stories(PAIR["prompt"])["input_ids"]
    # This tokenizer's BOS is its EOS too: one opens, one closes, none between.
    assert row.ids.count(stories.bos_token_id) == 2
    assert row.ids[-1] == stories.eos_token_id


def test_special_tokens_in_data_stay_text(
    stories: PreTrainedTokenizerBase, gpt2: PreTrainedTokenizerBase
) -> None:
    for tokenizer, spelt in ((stories, "</s>"), (gpt2, "<|endoftext|>")):
        row = one({"prompt": f"a {spelt} b\n", "response": f"c {spelt} d"}, tokenizer)
        inner = row.ids[1:-1]
        assert not set(inner) & set(tokenizer.all_special_ids)
        assert spelt in tokenizer.decode(row.ids[: row.prompt])
        assert spelt in tokenizer.decode(scored(row)[:-1])


def test_score_all_scores_the_prompt_too(gpt2: PreTrainedTokenizerBase) -> None:
    row, masked = one(PAIR, gpt2, score="all"), one(PAIR, gpt2)
    assert row.ids == masked.ids
    assert row.labels[1:] == row.ids[1:]
    assert row.prompt == masked.prompt


def test_raw_text_is_scored_whole(stories: PreTrainedTokenizerBase, gpt2: PreTrainedTokenizerBase) -> None:
    text = {"text": "Once upon a time there was a little girl. " * 9}
    row = one(text, stories)
    assert scored(row) == row.ids[1:]
    assert row.ids[-1] == stories.eos_token_id
    assert row.prompt == 32
    assert row.prompt_text
    assert text["text"].startswith(row.prompt_text)
    plain = one(text, gpt2)
    assert plain.labels[1:] == plain.ids[1:], "without a BOS the first token cannot be predicted"
    short = one({"text": "One two three four"}, gpt2)
    assert short.prompt == len(short.ids) // 2


def test_alpaca_form_for_instructions(gpt2: PreTrainedTokenizerBase) -> None:
    row = one({"instruction": "Add.", "input": "1+1", "output": "2"}, gpt2)
    assert row.prompt_text == "### Instruction:\nAdd.\n\n### Input:\n1+1\n\n### Response:\n"
    row = one({"instruction": "Add.", "context": "", "response": "2"}, gpt2)
    assert row.prompt_text == "### Instruction:\nAdd.\n\n### Response:\n"


def test_prompt_template(gpt2: PreTrainedTokenizerBase) -> None:
    for end in ("\n", r" $\neq \nabla$"):  # the second is LaTeX, and stays what it is
        template = f"{{n}}. {{q}}{end}"
        row = one({"q": "Why?", "n": 3, "a": "So."}, gpt2, prompt_template=template, response_column="a")
        assert row.prompt_text == f"3. Why?{end}"
    with pytest.raises(InputError, match=r"names \{who\}.*Its columns: a, q"):
        encode([{"q": "", "a": ""}], gpt2, prompt_template="{who}", response_column="a")


def test_rows_without_prompt_or_response_are_dropped(gpt2: PreTrainedTokenizerBase) -> None:
    rows = [
        {"prompt": "a", "response": None},
        {"prompt": " ", "response": "b"},
        PAIR,
        {"prompt": "a", "response": ""},
    ]
    reasons = [row.reason if isinstance(row, Dropped) else None for row in encode(rows, gpt2)]
    assert reasons == ["empty response", "empty prompt", None, "empty response"]


def test_tokenised_rows(gpt2: PreTrainedTokenizerBase) -> None:
    eos = gpt2.eos_token_id
    ids, mask = [10, 11, 12, 13, eos, eos, eos], [1, 1, 1, 1, 1, 0, 0]
    row = one({"input_ids": ids, "attention_mask": mask}, gpt2)
    assert row.ids == ids[:5], "padding goes by its mask, the EOS before it stays"
    assert scored(row) == [11, 12, 13, eos]
    row = one(
        {"input_ids": ids, "attention_mask": mask, "labels": [-100, -100, 12, 13, eos, -100, -100]}, gpt2
    )
    assert (scored(row), row.prompt) == ([12, 13, eos], 2)
    row = one({"input_ids": ids[:5], "prompt_input_ids": [10, 11, 12]}, gpt2)
    assert (scored(row), row.prompt) == ([13, eos], 3)
    labelled = {"input_ids": ids[:5], "prompt_input_ids": [10, 11, 12], "labels": [10, -100, 12, 13, eos]}
    row = one(labelled, gpt2)
    assert (scored(row), row.prompt) == ([12, 13, eos], 3), "labels alone say what is scored"
    padded_left = one({"input_ids": [eos, eos, 10, 11], "attention_mask": [0, 0, 1, 1]}, gpt2)
    assert padded_left.ids == [10, 11]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [1, 99999]}, "holds 99999"),
        ({"input_ids": [1, 2], "labels": [1, -1]}, "row 0: labels holds -1, .*-100 marks what is not scored"),
        ({"input_ids": [1, 2], "labels": [99999, 2]}, "labels holds 99999"),
        ({"input_ids": [1, 2], "labels": [1]}, "labels has 1 entries, input_ids 2"),
        ({"input_ids": "text"}, "not a list of whole numbers"),
        ({"input_ids": [1, 2], "prompt_input_ids": [3]}, "does not begin with"),
        ({"prompt": {"a": 1}, "response": "b"}, "row 0: column prompt holds dict"),
        ({"messages": [{"role": "user", "content": "a"}]}, "need a chat template"),
    ],
)
def test_rows_of_the_wrong_kind(row: dict[str, Any], message: str, gpt2: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match=message):
        encode([row], gpt2)


def test_chat_template_asked_for_and_missing(gpt2: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match=r"data.chat_template=true"):
        encode([PAIR], gpt2, chat_template=True)


@pytest.mark.parametrize("name", ["gpt2", "stories", "chatml"])
def test_a_prompt_that_loses_its_left_is_shown_as_it_is_read(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    row = {"instruction": f"Say {' '.join(map(str, range(40)))}.", "response": "Hello."}
    whole = one(row, tokenizer, truncation="prompt_left")
    cut = one(row, tokenizer, truncation="prompt_left", max_length=len(whole.ids) // 2)
    assert whole.prompt_text.removeprefix("### Instruction:\n").startswith("Say 0 1 2")
    assert cut.prompt_text == tokenizer.decode(cut.ids[: cut.prompt], skip_special_tokens=True)
    assert "Say 0" not in cut.prompt_text
    assert cut.prompt_text.strip().endswith("### Response:" if name != "chatml" else "39.\nassistant")
    assert cut.response_text == whole.response_text
    end = one(row, tokenizer, max_length=len(whole.ids) - 2)
    assert (end.cut, end.prompt_text) == (2, whole.prompt_text)


LENGTHS = st.integers(1, 12)


@st.composite
def a_row(draw: st.DrawFn) -> Encoded:
    """Distinct ids: keep (BOS) first, then the prompt, then the response with 999 as its EOS."""
    prompt, response = draw(LENGTHS), draw(LENGTHS)
    ids = [*range(prompt), *range(100, 100 + response), 999]
    keep = draw(st.integers(0, 1))
    return Encoded(ids, [IGNORE_INDEX] * prompt + ids[prompt:], prompt, keep, "", "")


@given(a_row(), st.integers(2, 30), st.sampled_from(["response", "prompt_left", "drop"]))
def test_shorten(row: Encoded, max_length: int, truncation: str) -> None:
    prompt, response = row.ids[: row.prompt], row.ids[row.prompt :]
    short = shorten(row, max_length, truncation)
    if len(row.ids) <= max_length:
        assert short == row
        return
    if truncation == "drop":
        assert short == Dropped("longer than data.max_length")
        return
    if truncation == "response" and row.prompt >= max_length:
        assert short == Dropped("prompt fills data.max_length", row.prompt)
        return
    if isinstance(short, Dropped):  # a BOS and one prompt token leave no room in two positions
        assert max_length <= row.keep + 1 < row.prompt + 1
        return
    assert len(short.ids) == len(short.labels) == max_length
    assert scored(short) == short.ids[short.prompt :] != []
    kept = short.ids[short.prompt :]
    assert kept == response[: len(kept)], "a response loses its end only, and its EOS with it"
    if truncation == "response":
        assert short.ids[: short.prompt] == prompt
    else:
        assert short.ids[: row.keep] == prompt[: row.keep]
        tail = short.ids[row.keep : short.prompt]
        assert tail == prompt[len(prompt) - len(tail) :], "the prompt loses its left, after the BOS"
        assert kept == response or short.prompt <= row.keep + 1, "the response is cut last"


def test_chats_as_sharegpt_writes_them(chatml: PreTrainedTokenizerBase) -> None:
    turns = [("system", "Be kind."), ("human", "Hi?"), ("gpt", "Hello.")]
    theirs = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    roles = {"human": "user", "gpt": "assistant"}
    ours = {"messages": [{"role": roles.get(role, role), "content": text} for role, text in turns]}
    assert one(theirs, chatml) == one(ours, chatml)
    with pytest.raises(InputError, match="role 'narrator' is unknown"):
        encode([{"conversations": [{"from": "narrator", "value": "a"}]}], chatml)


def test_chats_without_a_template_name_the_way_out_that_fits(
    gpt2: PreTrainedTokenizerBase, chatml: PreTrainedTokenizerBase
) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(InputError, match=r"the tokenizer has none\. Give a model whose tokenizer has one"):
        encode([row], gpt2)
    with pytest.raises(InputError, match=r"turns it off\. Leave data\.chat_template=false out, or give rows"):
        encode([row], chatml, chat_template=False)
