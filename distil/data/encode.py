"""Raw rows to token ids with scored positions: one encoder a row shape, one way to shorten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from distil.config.schema import DataConfig
from distil.data.base import ColumnsConfig, Row, place_of
from distil.data.codec import Chat, Codec, Message
from distil.data.columns import Kind, Shape, as_text, prompt_of
from distil.data.encoded import (
    EMPTY_PROMPT,
    EMPTY_RESPONSE,
    EMPTY_TEXT,
    NO_ASSISTANT,
    Dropped,
    Encoded,
    shorten,
)
from distil.data.token_rows import token_row
from distil.data.turns import as_conversation, read_messages
from distil.types import IGNORE_INDEX, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns: TypeAlias = tuple[list[Message], str, str]
"""Messages before the response, the same as readable text, response."""


WITH_TEMPLATE = (
    "Give a model whose tokenizer has one (save_pretrained keeps what is set as its chat_template)"
)


def closed(prompt: str, ending: str) -> str:
    """``prompt`` with ``ending``, of which it may have the beginning already."""
    there = next(n for n in range(len(ending), -1, -1) if prompt.endswith(ending[:n]))
    return prompt + ending[there:]


class Encoder:
    """Turns batches of raw rows of one shape into tokens.

    ``ending``: blanks and line breaks that close prompts which are written as they are, where they lack them.
    ``lines``: for messages, the line that each row of the source begins on (0: rows are not lines).
    """

    def __init__(
        self,
        config: ColumnsConfig,
        shape: Shape,
        tokenizer: PreTrainedTokenizerBase,
        where: str,
        ending: str = "",
        lines: Sequence[int] = (),
    ) -> None:
        self.config = config
        self.shape = shape
        self.where = where
        self.lines = lines
        self.codec = Codec(tokenizer, config.split_special_tokens)
        self.chat = chat_of(config, self.codec)
        self.ending = ending if self.chat is None and shape.as_it_is else ""

    def encode(self, rows: Sequence[Row], numbers: Sequence[int]) -> list[Encoded | Dropped]:
        """One entry a row, in order; ``numbers`` are the rows' own, for error messages.

        Raises MalformedRow for the first whose columns do not hold what they should, InputError for chat
        messages without a chat template.
        """
        if self.shape.kind is Kind.MESSAGES and self.chat is None:
            why, way = "the tokenizer has none", WITH_TEMPLATE
            if self.config.chat_template is False:
                why, way = "data.chat_template=false turns it off", "Leave data.chat_template=false out"
            raise InputError(
                f"{self.where} holds chat messages, which need a chat template, and {why}. {way}, or give "
                "rows of prompt and response."
            )
        encoders = {
            Kind.PAIR: self._pairs,
            Kind.MESSAGES: self._messages,
            Kind.TEXT: self._texts,
            Kind.TOKENS: self._tokens,
        }
        encoded = encoders[self.shape.kind](rows, [self.place(number) for number in numbers])
        return [row if isinstance(row, Dropped) else self._fit(row) for row in encoded]

    def place(self, number: int) -> str:
        """How messages name the row of this number: file and line, or data set and row."""
        return f"{self.where}, {place_of(self.lines[number] if self.lines else 0, number)}"

    def check(self, row: Row, number: int) -> None:
        """Raise MalformedRow where ``encode`` would for this row: for its cells, or by the chat template."""
        where = self.place(number)
        if self.shape.kind is Kind.PAIR:
            prompt, response = self._pair(row, where)
            if self.chat is not None and _empty(prompt, response) is None:
                self.chat.prompts([_asked(prompt)], [where])
        elif self.shape.kind is Kind.MESSAGES:
            turns = _turns_of(row, self.shape, where)
            if not isinstance(turns, str) and self.chat is not None:
                self.chat.prompts([turns[0]], [where])
        elif self.shape.kind is Kind.TEXT:
            _text_of(row, self.shape, where)
        else:
            token_row(row, where, self.codec, self.config.score)

    def _fit(self, row: Encoded) -> Encoded | Dropped:
        fitted = shorten(row, self.config.max_length, self.config.truncation)
        if isinstance(fitted, Dropped):
            return fitted
        if self.shape.kind is Kind.TEXT or (self.shape.kind is Kind.TOKENS and fitted.prompt <= fitted.keep):
            prompt = max(1, min(self.config.text_prompt_tokens, len(fitted.ids) // 2))
            fitted = replace(
                fitted,
                prompt=prompt,
                prompt_text=self.codec.text(fitted.ids[:prompt]),
                response_text=self.codec.text(fitted.ids[prompt:]),
            )
        elif fitted.prompt < row.prompt:
            seen = [i for i in fitted.ids[: fitted.prompt] if i not in self.codec.guarded]
            fitted = replace(fitted, prompt_text=self.codec.text(seen))
        return fitted

    def _join(self, prompt_ids: list[int], response_ids: list[int], prompt: str, response: str) -> Encoded:
        ids = prompt_ids + response_ids
        scored = ids if self.config.score == "all" else [IGNORE_INDEX] * len(prompt_ids) + response_ids
        return Encoded(
            ids, list(scored), len(prompt_ids), self.codec.kept_start(prompt_ids), prompt, response
        )

    def _pairs(self, rows: Sequence[Row], wheres: Sequence[str]) -> list[Encoded | Dropped]:
        chat = self.chat
        pairs = [self._pair(row, where) for row, where in zip(rows, wheres, strict=True)]
        reasons = [_empty(prompt, response) for prompt, response in pairs]
        good = [
            (closed(p, self.ending), r) for (p, r), why in zip(pairs, reasons, strict=True) if why is None
        ]
        if chat is not None:
            kept = [where for where, why in zip(wheres, reasons, strict=True) if why is None]
            encoded = self._turns([(_asked(p), p, r) for p, r in good], kept)
        else:
            prompts = self.codec.data([prompt for prompt, _ in good])
            responses = self.codec.data([response for _, response in good])
            encoded = [
                self._join(self.codec.start_ids + prompt_ids, [*response_ids, self.codec.eos_id], *texts)
                for prompt_ids, response_ids, texts in zip(prompts, responses, good, strict=True)
            ]
        return _with_dropped(encoded, reasons)

    def _pair(self, row: Row, where: str) -> tuple[str, str]:
        return _pair_of(row, self.shape, self.chat is not None, where)

    def _messages(self, rows: Sequence[Row], wheres: Sequence[str]) -> list[Encoded | Dropped]:
        found = [_turns_of(row, self.shape, where) for row, where in zip(rows, wheres, strict=True)]
        kept = [
            (turns, where) for turns, where in zip(found, wheres, strict=True) if not isinstance(turns, str)
        ]
        encoded = self._turns([turns for turns, _ in kept], [where for _, where in kept])
        return _with_dropped(encoded, [turns if isinstance(turns, str) else None for turns in found])

    def _turns(self, turns: Sequence[Turns], wheres: Sequence[str]) -> list[Encoded]:
        """Turns through the chat template."""
        assert self.chat is not None
        prompts = self.chat.prompts([messages for messages, _, _ in turns], wheres)
        responses = self.chat.responses([response for _, _, response in turns])
        return [
            self._join(prompt_ids, body + end, prompt, response)
            for prompt_ids, (body, end), (_, prompt, response) in zip(prompts, responses, turns, strict=True)
        ]

    def _texts(self, rows: Sequence[Row], wheres: Sequence[str]) -> list[Encoded | Dropped]:
        texts = [_text_of(row, self.shape, where) for row, where in zip(rows, wheres, strict=True)]
        start, end = self.codec.start_ids, [self.codec.eos_id]
        unscored = [IGNORE_INDEX] * len(start)
        encoded = [
            Encoded(start + ids + end, unscored + ids + end, len(start), len(start), "", "")
            for ids in self.codec.data([text for text in texts if text.strip()])
        ]
        return _with_dropped(encoded, [None if text.strip() else EMPTY_TEXT for text in texts])

    def _tokens(self, rows: Sequence[Row], wheres: Sequence[str]) -> list[Encoded | Dropped]:
        return [
            token_row(row, where, self.codec, self.config.score)
            for row, where in zip(rows, wheres, strict=True)
        ]


def chat_of(config: ColumnsConfig, codec: Codec) -> Chat | None:
    """The chat template that ``data.chat_template`` asks for. Raises InputError where there is none."""
    has_template = bool(getattr(codec.tokenizer, "chat_template", None))
    if config.chat_template and not has_template:
        raise InputError(
            "data.chat_template=true, but the model's tokenizer has no chat template. Set "
            "data.chat_template=false, or give an instruct model."
        )
    return Chat(codec) if has_template and config.chat_template is not False else None


def stop_ids(config: DataConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a response: the tokenizer's EOS and, in a chat, what closes the assistant's turn."""
    assert isinstance(config, ColumnsConfig), f"data={config.name}: its config must subclass ColumnsConfig"
    codec = Codec(tokenizer)
    chat = chat_of(config, codec)
    return sorted({codec.eos_id} | ({chat.turn_end_ids[-1]} if chat else set()))


def nothing_in(row: Row, shape: Shape, where: str) -> str | None:
    """Why nothing is learnt from a row, whatever the tokenizer; None where that is not seen without one.

    Raises MalformedRow where its columns do not hold what they should.
    """
    if shape.kind is Kind.TEXT:
        return None if _text_of(row, shape, where).strip() else EMPTY_TEXT
    if shape.kind is Kind.PAIR:
        return _empty(*_pair_of(row, shape, True, where))
    if shape.kind is Kind.MESSAGES:
        turns = _turns_of(row, shape, where)
        return turns if isinstance(turns, str) else None
    return None


def _text_of(row: Row, shape: Shape, where: str) -> str:
    column = shape.text or ""
    return as_text(row.get(column), column, where)


def _pair_of(row: Row, shape: Shape, chat: bool, where: str) -> tuple[str, str]:
    """Prompt and response of a row as text."""
    column = shape.response or ""
    return prompt_of(row, shape, chat, where), as_text(row.get(column), column, where)


def _turns_of(row: Row, shape: Shape, where: str) -> Turns | str:
    """The turns of a row up to its last one by the assistant, or why it has none."""
    column = shape.messages or ""
    messages = read_messages(row.get(column) or [], f"{where}, column {column}")
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=None)
    if last is None:
        return NO_ASSISTANT
    prompt, response = as_conversation(messages[:last]), messages[last]["content"]
    return _empty(prompt, response) or (messages[:last], prompt, response)


def _asked(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def _empty(prompt: str, response: str) -> str | None:
    if not prompt.strip():
        return EMPTY_PROMPT
    return None if response.strip() else EMPTY_RESPONSE


def _with_dropped(encoded: Sequence[Encoded], reasons: Sequence[str | None]) -> list[Encoded | Dropped]:
    good = iter(encoded)
    return [next(good) if reason is None else Dropped(reason) for reason in reasons]
