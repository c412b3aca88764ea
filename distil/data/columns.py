"""Which columns of a data set hold prompt, response, messages, text or tokens."""

from __future__ import annotations

import shlex
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

from distil.data.base import COLUMNS, ColumnsConfig, MalformedRow, Row
from distil.data.csv_rows import no_header
from distil.data.text_files import is_text
from distil.registry import did_you_mean, nearest
from distil.types import InputError

PROMPT_NAMES = ("instruction", "prompt", "question")
RESPONSE_NAMES = ("response", "output", "completion", "answer")
CONTEXT_NAMES = ("context", "input")
MESSAGES_NAMES = ("messages", "conversations")
TEXT_NAMES = ("text",)
CONTEXT = "data.context_column names what a prompt is about."
KNOWN_NAMES = dict(
    zip(COLUMNS, (PROMPT_NAMES, RESPONSE_NAMES, CONTEXT_NAMES, MESSAGES_NAMES, TEXT_NAMES), strict=True)
)
"""Names under which a column is found that ``data.`` does not name."""
LIKE_KNOWN = 0.8
"""How like a well-known name a column is that may be meant by it."""
LISTED = 20
"""Columns that a message lists; the rest are counted."""
LONGEST = 40
"""Characters of a column's name that a message shows."""
ALPACA = "### Instruction:\n{prompt}\n\n### Response:\n"
ALPACA_CONTEXT = "### Instruction:\n{prompt}\n\n### Input:\n{context}\n\n### Response:\n"


class Kind(Enum):
    """The shapes a row can have."""

    TOKENS = "tokens"
    MESSAGES = "messages"
    PAIR = "pair"
    TEXT = "text"


SHAPE_KEYS = {
    "prompt_column": Kind.PAIR,
    "response_column": Kind.PAIR,
    "prompt_template": Kind.PAIR,
    "messages_column": Kind.MESSAGES,
    "text_column": Kind.TEXT,
}
"""Keys that say which shape rows have."""


@dataclass(frozen=True)
class Shape:
    """A row shape and the columns that make it; the columns that its kind does not use are None."""

    kind: Kind
    prompt: str | None = None
    response: str | None = None
    context: str | None = None
    messages: str | None = None
    text: str | None = None
    template: str | None = None
    headings: bool = False
    """Whether a prompt gets those of Alpaca, where no chat template writes it."""

    @property
    def as_it_is(self) -> bool:
        """Whether a prompt is written as it stands, where no chat template writes it."""
        return self.kind is Kind.PAIR and self.template is None and not self.headings

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"kind": self.kind.value} | {
            key: value for key, value in vars(self).items() if key != "kind" and value is not None
        }

    @classmethod
    def read(cls, told: Any) -> Shape | None:
        """What ``record`` made; None where it is something else."""
        try:
            return cls(**{**told, "kind": Kind(told["kind"])})
        except (TypeError, ValueError, LookupError):
            return None


def detect(config: ColumnsConfig, columns: Collection[str], where: str) -> Shape:
    """The shape of rows with these columns: what the config names, else well-known names.

    Raises InputError naming the columns there are where a named one is missing or none is known.
    """
    _check_named(config, columns, where)
    chosen = {kind: key for key, kind in reversed(SHAPE_KEYS.items()) if getattr(config, key)}
    if len(chosen) > 1:
        *_, other, one = chosen.values()
        raise InputError(f"data.{one} and data.{other} are both set: a row has one shape. Set one to null.")
    _check_apart(config, columns)
    if not chosen and "input_ids" in columns:
        return Shape(Kind.TOKENS)
    messages = config.messages_column or (None if chosen else _first(MESSAGES_NAMES, columns))
    if messages:
        return Shape(Kind.MESSAGES, messages=messages)
    if list(chosen) != [Kind.TEXT]:
        shape = _pair(config, columns)
        if shape is not None:
            _check_answer_apart(shape, columns)
            return shape
    text = config.text_column or (None if chosen else _first(TEXT_NAMES, columns))
    if text:
        return Shape(Kind.TEXT, text=text)
    raise InputError(f"{where} has no columns to learn from. {listed(columns)} {_to_name(config, columns)}")


def _check_apart(config: ColumnsConfig, columns: Collection[str]) -> None:
    """Raise InputError where one column is to be prompt and response: the student would copy it."""
    response = config.response_column
    alone = config.prompt_column is None and config.prompt_template is None
    prompt = _first(PROMPT_NAMES, columns) if alone else config.prompt_column
    others = [name for name in PROMPT_NAMES if name in columns and name != response]
    if response is None or prompt != response or (alone and others):
        return
    meant = _first(RESPONSE_NAMES, [name for name in columns if name != response])
    raise InputError(
        f"data.response_column={response} is the prompt's column, too."
        f"{f' Did you mean data.response_column={meant}?' if meant else ''} {listed(columns)}"
    )


def _check_answer_apart(shape: Shape, columns: Collection[str]) -> None:
    """Raise InputError where prompts would hold what is asked for, or the context is the prompt once more."""
    other = {shape.response: "response", shape.prompt: "prompt"}.get(shape.context)
    if shape.template is None and shape.context is not None and other is not None:
        raise InputError(
            f"data.context_column={shape.context} is the {other}'s column, too: a context is what a prompt "
            f"is about, beside both. {listed(columns)}"
        )
    if shape.response in template_fields(shape.template):
        raise InputError(
            f"data.prompt_template={shape.template!r} names {{{shape.response}}}, the response's column: "
            f"each prompt would hold its answer. {listed(columns)}"
        )


def _pair(config: ColumnsConfig, columns: Collection[str]) -> Shape | None:
    taken = {config.response_column, config.context_column}
    prompt = config.prompt_column or _first(PROMPT_NAMES, [c for c in columns if c not in taken])
    response = config.response_column or _first(
        RESPONSE_NAMES, [c for c in columns if c not in (prompt, config.context_column)]
    )
    context = config.context_column or _first(
        CONTEXT_NAMES, [c for c in columns if c not in (prompt, response)]
    )
    if response is None or (prompt is None and config.prompt_template is None):
        return None
    template = config.prompt_template
    headings = template is None and prompt != "prompt"
    return Shape(Kind.PAIR, prompt, response, context, template=template, headings=headings)


def _to_name(config: ColumnsConfig, columns: Collection[str]) -> str:
    """Which keys name the columns: with those there are that well-known names are like."""
    pair: dict[str, str | None] = {}
    for key in ("response_column",) if config.prompt_template else ("prompt_column", "response_column"):
        taken = pair.values()
        pair[key] = getattr(config, key) or _like(KNOWN_NAMES[key], [c for c in columns if c not in taken])
    if config.prompt_template or any(pair.values()):
        words = (shlex.quote(f"data.{key}={name or 'NAME'}") for key, name in pair.items())
        more = len(_without_ids(columns)) > len(pair) and not config.prompt_template
        return f"Name them: {' '.join(words)}.{f' {CONTEXT}' if more else ''}"
    for key in ("messages_column", "text_column"):
        if name := _like(KNOWN_NAMES[key], columns):
            return f"Name it: {shlex.quote(f'data.{key}={name}')}."
    return (
        "Name them: data.prompt_column and data.response_column (or data.prompt_template), "
        "data.messages_column, or data.text_column."
        f"{f' {CONTEXT}' if len(_without_ids(columns)) > 2 else ''}"
    )


def likely_pair(columns: Sequence[str]) -> tuple[str, str] | None:
    """The columns that may be meant as prompt and response: called nearly so, or the only two there are."""
    prompt = _like(PROMPT_NAMES, columns)
    response = _like(RESPONSE_NAMES, [column for column in columns if column != prompt])
    told = _without_ids(columns)
    if len(told) == 2 and (prompt is None or response is None):
        prompt = prompt or next(column for column in told if column != response)
        response = response or next(column for column in told if column != prompt)
    return None if prompt is None or response is None else (prompt, response)


def _like(names: Collection[str], columns: Collection[str]) -> str | None:
    """The column that is called, or nearly called, by one of ``names``; none of numbers of rows."""
    told = _without_ids(columns)
    return next((near for name in names if (near := nearest(name, told, LIKE_KNOWN))), None)


def _without_ids(columns: Collection[str]) -> list[str]:
    """``columns`` without ``question_id`` and its like, which hold no text."""
    return [column for column in columns if not column.casefold().endswith("_id")]


def _check_named(config: ColumnsConfig, columns: Collection[str], where: str) -> None:
    for key, names in KNOWN_NAMES.items():
        name = getattr(config, key)
        if name is not None and name not in columns:
            known = _first(names, columns)
            meant = did_you_mean(name, _without_ids(columns)) or (f" Did you mean {known}?" if known else "")
            raise InputError(
                f"data.{key}={name} is not a column of {where}.{'' if no_header(columns) else meant} "
                f"{listed(columns)}"
            )
    for name in template_fields(config.prompt_template):
        if name not in columns:
            raise InputError(
                f"data.prompt_template={config.prompt_template!r} names {{{name}}}, which is not a column of "
                f"{where}.{did_you_mean(name, columns)} {listed(columns)} A brace that is text is written "
                "twice: {{ }}."
            )


def template_fields(template: str | None) -> list[str]:
    """The columns that a prompt template names, each once. Raises InputError where it is no format string."""
    return list(dict.fromkeys(name for _, name in _pieces(template or "") if name is not None))


def renamed(template: str, old: str, new: str) -> str:
    """A prompt template that takes column ``new`` where it took ``old``."""

    def escaped(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    pieces = [(text, new if name == old else name) for text, name in _pieces(template)]
    return "".join(escaped(text) + ("" if name is None else f"{{{name}}}") for text, name in pieces)


def is_written_by(template: str, prompt: str) -> bool:
    """Whether ``prompt`` has what a prompt template writes around its columns, but for blanks at its end. One
    column with nothing before it and no word after it may be any text: then never."""
    pieces = _pieces(template)
    texts = [text for text, _ in pieces]
    if pieces[-1][1] is not None:
        texts.append("")  # after the last column
    if len(texts) == 1:
        return prompt.rstrip() == template.rstrip()
    first, *inner, last = [*texts[:-1], texts[-1].rstrip()]
    if not inner and not first.strip() and not any(letter.isalnum() for letter in last):
        return False
    rest = prompt.rstrip()
    if not rest.startswith(first) or not rest[len(first) :].endswith(last):
        return False
    start, end = len(first), len(rest) - len(last)
    for number, text in enumerate(inner, 1):
        at = rest.find(text, start, end)
        if at < 0:  # of an empty last column nothing is left, and the blanks before it may be gone
            left = text.rstrip()
            return number == len(inner) and not last and left != "" and rest[start:].endswith(left)
        start = at + len(text)
    return True


def _pieces(template: str) -> list[tuple[str, str | None]]:
    """A prompt template as (text, column that follows it), the last perhaps without a column."""
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(
            f"data.prompt_template={template!r} is not a format string: {error}. A column is written "
            "{name}, a brace that is text twice: {{ or }}."
        ) from error
    if any(layout or conversion for _, _, layout, conversion in pieces):
        raise InputError(
            f"data.prompt_template={template!r}: a brace holds the name of a column, without ':' or '!'."
        )
    return [(text, name) for text, name, _, _ in pieces]


def prompt_of(row: Row, shape: Shape, chat: bool, where: str) -> str:
    """The prompt of a prompt/response row as text; empty where the row has none.

    ``chat``: a chat template follows, so the text carries no headings of its own.
    """
    if shape.template is not None:
        # Not str.format, which would look for a column called a.b inside one called a.
        return "".join(
            text + ("" if name is None else as_text(row.get(name), name, where))
            for text, name in _pieces(shape.template)
        )
    assert shape.prompt is not None
    prompt = as_text(row.get(shape.prompt), shape.prompt, where)
    context = as_text(row.get(shape.context), shape.context, where) if shape.context else ""
    if not prompt.strip():
        return ""
    if chat or not shape.headings:
        return f"{prompt}\n\n{context}" if context.strip() else prompt
    return (ALPACA_CONTEXT if context.strip() else ALPACA).format(prompt=prompt, context=context)


def has_input(prompt: str) -> bool:
    """Whether a prompt in the Alpaca form has a context."""
    return "\n\n### Input:\n" in prompt


def as_text(value: object, column: str, where: str) -> str:
    """A cell as text: null (NaN, of pandas) is empty, of several references the first counts, a number is
    written out.

    Raises MalformedRow for an object, a number without end, half of a surrogate pair: none is text.
    """
    while isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        if is_text(value):
            return value
        kind = "half of a surrogate pair"
    elif isinstance(value, (int, float)) and abs(value) != inf:
        return str(value)
    else:
        kind = str(value) if isinstance(value, float) else f"{type(value).__name__} values"
    raise MalformedRow(
        f"{where}: column {column} holds {kind}, not text. Choose another column; "
        "whole conversations go into one column, messages."
    )


def _first(names: Collection[str], columns: Collection[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def listed(columns: Collection[str]) -> str:
    """Which columns there are, in a sentence, and a second one where they look like a row."""
    names = sorted(columns)
    shown = [name if len(name) <= LONGEST else f"{name[:LONGEST]}…" for name in names[:LISTED]]
    row = no_header(names)
    shown = [repr(name) for name in shown] if row else shown  # they hold full stops and question marks
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"Its columns: {', '.join(shown) or 'none'}{more}. {row}".rstrip()
