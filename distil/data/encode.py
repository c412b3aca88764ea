"""Raw rows to token ids with scored positions: one encoder a row shape, one way to shorten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from distil.config.schema import DataConfig
from distil.data.base import ColumnsConfig, MalformedRow, Row, place_of
from distil.data.codec import ROLES, Chat, Codec, Message
from distil.data.columns import Kind, Shape, as_text, prompt_of
from distil.types import IGNORE_INDEX, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMPTY_PROMPT = "empty prompt"
EMPTY_RESPONSE = "empty response"
EMPTY_TEXT = "empty text"
NO_ASSISTANT = "no assistant turn"
PROMPT_TOO_LONG = "prompt fills data.max_length"
TOO_LONG = "longer than data.max_length"
NOTHING_SCORED = "no scored token"

Turns: TypeAlias = tuple[list[Message], str, str]
"""Messages before the response, the same as readable text, response."""


@dataclass(frozen=True)
class Encoded:
    """One row as tokens.

    ``ids`` and ``labels`` have one length; position 0 is never scored, as nothing predicts it. ``prompt``:
    how many leading ids generation starts from. ``keep``: how many of them (BOS) survive when the prompt
    loses its left.
    """

    ids: list[int]
    labels: list[int]
    prompt: int
    keep: int
    prompt_text: str
    response_text: str
    cut: int = 0
    """How many ids it lost to ``max_length``."""


@dataclass(frozen=True)
class Dropped:
    """A row that cannot be used: why, and how long its prompt is where that is the reason."""

    reason: str
    prompt_tokens: int = 0


def shorten(row: Encoded, max_length: int, truncation: str) -> Encoded | Dropped:
    """``row`` with at most ``max_length`` ids and at least one scored token, or why there is none.

    ``response`` cuts at the end. ``prompt_left`` first cuts the prompt after its BOS, down to one token, then
    the end. ``drop`` cuts nothing. A cut end takes the closing EOS with it: stopping is not learnt at a cut.
    """
    excess = len(row.ids) - max_length
    if excess > 0 and truncation == "drop":
        return Dropped(TOO_LONG)
    if excess > 0 and truncation == "prompt_left":
        cut = slice(row.keep, row.keep + max(0, min(excess, row.prompt - row.keep - 1)))
        ids, labels = list(row.ids), list(row.labels)
        del ids[cut], labels[cut]
        row = replace(row, ids=ids, labels=labels, prompt=row.prompt - (len(row.ids) - len(ids)))
    ids, labels = row.ids[:max_length], [IGNORE_INDEX, *row.labels[1:max_length]]
    if all(label == IGNORE_INDEX for label in labels):
        return Dropped(PROMPT_TOO_LONG, row.prompt) if row.prompt >= max_length else Dropped(NOTHING_SCORED)
    return replace(row, ids=ids, labels=labels, prompt=min(row.prompt, max_length), cut=max(0, excess))


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
        as_it_is = self.chat is None and shape.prompt == "prompt" and shape.template is None
        self.ending = ending if as_it_is else ""

    def encode(self, rows: Sequence[Row], numbers: Sequence[int]) -> list[Encoded | Dropped]:
        """One entry a row, in order; ``numbers`` are the rows' own, for error messages.

        Raises MalformedRow for the first whose columns do not hold what they should, InputError for chat
        messages without a chat template.
        """
        if self.shape.kind is Kind.MESSAGES and self.chat is None:
            off = self.config.chat_template is False
            raise InputError(
                f"{self.where} holds chat messages, which need a chat template, and "
                f"{'data.chat_template=false turns it off' if off else 'the tokenizer has none'}. "
                "Give a model whose tokenizer has one, or name data.prompt_column and data.response_column."
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
            turns = self._chat_turns(row, where)
            if not isinstance(turns, str) and self.chat is not None:
                self.chat.prompts([turns[0]], [where])
        elif self.shape.kind is Kind.TEXT:
            as_text(row.get(self.shape.text or ""), self.shape.text or "", where)
        else:
            self._token_row(row, where)

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
        return fitted

    def _join(self, prompt_ids: list[int], response_ids: list[int], prompt: str, response: str) -> Encoded:
        ids = prompt_ids + response_ids
        scored = ids if self.config.score == "all" else [IGNORE_INDEX] * len(prompt_ids) + response_ids
        return Encoded(ids, list(scored), len(prompt_ids), self._keep(prompt_ids), prompt, response)

    def _keep(self, prompt_ids: Sequence[int]) -> int:
        bos = self.codec.tokenizer.bos_token_id
        return int(bos is not None and list(prompt_ids[:1]) == [bos])

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
        """Prompt and response of a row as text."""
        column = self.shape.response or ""
        prompt = prompt_of(row, self.shape, self.chat is not None, where)
        return prompt, as_text(row.get(column), column, where)

    def _messages(self, rows: Sequence[Row], wheres: Sequence[str]) -> list[Encoded | Dropped]:
        found = [self._chat_turns(row, where) for row, where in zip(rows, wheres, strict=True)]
        kept = [
            (turns, where) for turns, where in zip(found, wheres, strict=True) if not isinstance(turns, str)
        ]
        encoded = self._turns([turns for turns, _ in kept], [where for _, where in kept])
        return _with_dropped(encoded, [turns if isinstance(turns, str) else None for turns in found])

    def _chat_turns(self, row: Row, where: str) -> Turns | str:
        """The turns of a row up to its last one by the assistant, or why it has none."""
        column = self.shape.messages or ""
        messages = read_messages(row.get(column) or [], f"{where}, column {column}")
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=None)
        if last is None:
            return NO_ASSISTANT
        prompt, response = _conversation(messages[:last]), messages[last]["content"]
        return _empty(prompt, response) or (messages[:last], prompt, response)

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
        assert self.shape.text is not None
        column = self.shape.text
        texts = [as_text(row.get(column), column, where) for row, where in zip(rows, wheres, strict=True)]
        start, end = self.codec.start_ids, [self.codec.eos_id]
        unscored = [IGNORE_INDEX] * len(start)
        encoded = [
            Encoded(start + ids + end, unscored + ids + end, len(start), len(start), "", "")
            for ids in self.codec.data([text for text in texts if text.strip()])
        ]
        return _with_dropped(encoded, [None if text.strip() else EMPTY_TEXT for text in texts])

    def _tokens(self, rows: Sequence[Row], wheres: Sequence[str]) -> list[Encoded | Dropped]:
        return [self._token_row(row, where) for row, where in zip(rows, wheres, strict=True)]

    def _token_row(self, row: Row, where: str) -> Encoded | Dropped:
        """A row that is tokens already; its own padding (attention_mask 0) is taken off, nothing is added.

        Its ``labels`` say what is scored; without them it is what follows ``prompt_input_ids``.
        """
        real = _integers(row.get("attention_mask"), "attention_mask", where)
        ids = _integers(row.get("input_ids"), "input_ids", where) or []
        given = _integers(row.get("labels"), "labels", where)
        prompt_ids = self._prompt_ids(row, where)
        for name, other in (("attention_mask", real), ("labels", given)):
            if other is not None and len(other) != len(ids):
                raise MalformedRow(f"{where}: {name} has {len(other)} entries, input_ids {len(ids)}.")
        labels = list(ids) if given is None else given
        if real is not None:
            labels = [label for label, is_real in zip(labels, real, strict=True) if is_real]
            ids = [token_id for token_id, is_real in zip(ids, real, strict=True) if is_real]
        if not ids:
            return Dropped(EMPTY_TEXT)
        self._check_known(ids, labels, where)
        if prompt_ids is not None:
            if ids[: len(prompt_ids)] != prompt_ids:
                raise MalformedRow(f"{where}: input_ids does not begin with prompt_input_ids.")
            if given is None:  # labels say alone what is scored
                labels[: len(prompt_ids)] = [IGNORE_INDEX] * len(prompt_ids)
        prompt = len(prompt_ids or ()) or next((i for i, k in enumerate(labels) if k != IGNORE_INDEX), 0)
        if self.config.score == "all":
            labels = list(ids)
        texts = self.codec.text(ids[:prompt]), self.codec.text(ids[prompt:])
        return Encoded(ids, labels, prompt, self._keep(ids[:prompt]), *texts)

    def _check_known(self, ids: Sequence[int], labels: Sequence[int], where: str) -> None:
        """Raise MalformedRow for ids that the models have no row for."""
        known = len(self.codec.tokenizer)
        for column, values, way_out in (
            ("input_ids", ids, "Was the set tokenised for another model? Give its text instead."),
            ("labels", (k for k in labels if k != IGNORE_INDEX), f"{IGNORE_INDEX} marks what is not scored."),
        ):
            bad = next((token_id for token_id in values if not 0 <= token_id < known), None)
            if bad is not None:
                raise MalformedRow(
                    f"{where}: {column} holds {bad}, the model's tokenizer knows 0 to {known - 1}. {way_out}"
                )

    def _prompt_ids(self, row: Row, where: str) -> list[int] | None:
        """``prompt_input_ids`` without the padding that ``prompt_attention_mask`` tells."""
        ids = _integers(row.get("prompt_input_ids"), "prompt_input_ids", where)
        real = _integers(row.get("prompt_attention_mask"), "prompt_attention_mask", where)
        if ids is None or real is None:
            return ids
        if len(real) != len(ids):
            raise MalformedRow(
                f"{where}: prompt_attention_mask has {len(real)} entries, prompt_input_ids {len(ids)}."
            )
        return [token_id for token_id, is_real in zip(ids, real, strict=True) if is_real]


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


def read_messages(value: object, where: str) -> list[Message]:
    """Chat turns from a cell. Raises MalformedRow where it is not a list of {role, content}."""
    wanted = f"{where}: a list of {{role, content}} is wanted"
    if not isinstance(value, (list, tuple)):
        raise MalformedRow(f"{wanted}, it holds {type(value).__name__}.")
    messages: list[Message] = []
    for turn in value:
        if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
            raise MalformedRow(f"{wanted}, a turn is {str(turn)[:80]!r}.")
        if turn["role"] not in ROLES:
            raise MalformedRow(f"{where}: role {turn['role']!r} is unknown. Known: {', '.join(ROLES)}.")
        content = turn["content"]
        if isinstance(content, list):  # the parts of a multimodal message: its texts
            parts = [part.get("text") if isinstance(part, dict) else part for part in content]
            content = "".join(as_text(part, "content", where) for part in parts)
        messages.append({"role": turn["role"], "content": as_text(content, "content", where)})
    return messages


def _asked(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def _conversation(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _empty(prompt: str, response: str) -> str | None:
    if not prompt.strip():
        return EMPTY_PROMPT
    return None if response.strip() else EMPTY_RESPONSE


def _with_dropped(encoded: Sequence[Encoded], reasons: Sequence[str | None]) -> list[Encoded | Dropped]:
    good = iter(encoded)
    return [next(good) if reason is None else Dropped(reason) for reason in reasons]


def _integers(value: Any, column: str, where: str) -> list[int] | None:  # Any: a cell
    if value is None:
        return None
    numbers = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(numbers, (list, tuple)) or not all(isinstance(n, (int, bool)) for n in numbers):
        raise MalformedRow(f"{where}: column {column} is not a list of whole numbers: {str(value)[:60]!r}.")
    return [int(n) for n in numbers]
