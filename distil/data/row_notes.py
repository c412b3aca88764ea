"""What is odd about the rows of a run, and allowed: a line on each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from distil.config.schema import DataConfig
from distil.data.base import ColumnsConfig, Row
from distil.data.columns import CONTEXT, Kind, Shape, template_fields
from distil.data.encoded import PROMPT_TOO_LONG, TOO_LONG
from distil.system.printable import one_line

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Counts = Mapping[str, tuple[int, int]]
"""Of each split, how many of its rows something holds for, and how many it has."""


LOOKED_AT = 100
"""Rows, the first of a split, that tell what its texts are like."""
SEAM = 4
"""Tokens on each side of the place where a response begins that are looked at."""
WITHOUT_BLANKS = (
    "CJK",
    "FULLWIDTH",
    "HIRAGANA",
    "IDEOGRAPHIC",
    "KATAKANA",
    "KHMER",
    "LAO",
    "MYANMAR",
    "THAI",
)
"""How the names of letters begin that are written without blanks between words."""
FEW = 10
"""Rows of a test split that was set aside from which on nobody is told of more."""


def spelt_note(found: Sequence[tuple[str, str]]) -> str | None:
    """On rows whose text spells special tokens, which are characters there: which token, and where."""
    if not found:
        return None
    token, where = found[0]
    rows = "1 row spells special tokens" if len(found) == 1 else f"{len(found):,} rows spell special tokens"
    return (
        f"{rows} of the tokenizer, such as {token} in {where}: they are text there, not tokens. For rows "
        "that went through a template already: data.split_special_tokens=false."
    )


def cut_note(config: ColumnsConfig, cut: Counts) -> str | None:
    """On rows that lost tokens to ``data.max_length``."""
    if not _total(cut):
        return None
    are = "is longer than {} and was cut" if _total(cut) == 1 else "are longer than {} and were cut"
    limit = f"data.max_length={config.max_length}"
    return f"{_listed(cut)} {are.format(limit)} (data.truncation={config.truncation})."


def left_out_note(config: DataConfig, dropped: Mapping[str, int], kept: int) -> str:
    """On rows that nothing is learnt from, and what keeps those that are too long."""
    total = sum(dropped.values())
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in dropped.items())
    are = "is" if total == 1 else "are"
    said = f"{total:,} of {total + kept:,} rows that were read {are} left out: {reasons}."
    if dropped.get(PROMPT_TOO_LONG):
        said += f" A larger data.max_length={config.max_length} or data.truncation=prompt_left keeps them."
    if dropped.get(TOO_LONG):
        said += f" A larger data.max_length={config.max_length} or data.truncation=response keeps them."
    return said


def few_note(config: DataConfig, rows: int) -> str | None:
    """On a test split that was set aside and has so few ``rows`` that scores on them say little."""
    more = min(0.4, 4 * config.validation_fraction)
    capped = config.max_eval_rows is not None and rows >= config.max_eval_rows
    if rows >= FEW or capped or more <= config.validation_fraction:
        return None
    count = "1 row" if rows == 1 else f"{rows} rows"
    return (
        f"data.validation_fraction={config.validation_fraction:g} sets aside {count} for the "
        f"test: scores on so few say little. data.validation_fraction={more:g} sets more aside, "
        "data.test_file=FILE brings your own."
    )


def shared_note(train: Dataset, held_out: Mapping[str, Dataset]) -> str | None:
    """On rows of ``held_out`` that are training rows, token for token."""
    shared = {split: (len(_common(rows, train)), len(rows)) for split, rows in held_out.items()}
    if not _total(shared):
        return None
    one = _total(shared) == 1
    are = "is a training row, too: its scores are" if one else "are training rows, too: their scores are"
    return f"{_listed(shared)} {are} not of held-out rows."


def chosen_note(validation: Dataset, test: Dataset) -> str | None:
    """On test rows that are validation rows, token for token."""
    shared = len(_common(test, validation))
    if not shared:
        return None
    are = "is a validation row, too" if shared == 1 else "are validation rows, too"
    return f"{_listed({'test': (shared, len(test))})} {are}: what validation chooses is not tested on others."


def copies_note(rows: Dataset, what: str = "test rows") -> str | None:
    """On rows to test on of which half or more are copies of others, token for token."""
    different = len(set(_ids(rows)))
    if len(rows) < 2 * different or len(rows) < 2:
        return None
    are = "1 is" if different == 1 else f"{different:,} are"
    count = f"Of {len(rows):,} {what} {are} different"
    return f"{count}: copies tell nothing new, so scores are less sure than said."


def _common(rows: Dataset, others: Dataset) -> list[bytes]:
    """The token ids of those of ``rows`` that are among ``others``."""
    ids = list(_ids(rows))
    wanted = set(ids)
    found = {each for each in _ids(others) if each in wanted} if wanted else set()
    return [each for each in ids if each in found]


def template_note(template: str | None) -> str | None:
    """A line where a prompt template holds a backslash and an n: in a shell's plain quotes that is no line
    break. It may be meant (LaTeX's ``\\neq``), so nothing is changed."""
    if template is None or r"\n" not in template:
        return None
    return (
        r"data.prompt_template holds \n as two characters, and so do the prompts. For a line break, in bash: "
        r"""$'data.prompt_template="…\n…"'."""
    )


def alpaca_note(shape: Shape, chat: bool, *, keys: bool = True) -> str | None:
    """A line where prompts get headings (`prompt_of`) that nobody expects by the name of their column.
    ``keys``: whether who reads it gives keys of ``data``."""
    if chat or shape.template is not None or shape.prompt in (None, "prompt", "instruction"):
        return None
    bare = "call the column prompt"  # rows whose context is empty have no blank line then, as a template's do
    if keys and shape.context is None and re.fullmatch(r"[\w -]+", shape.prompt):
        bare = f"""$'data.prompt_template="{{{shape.prompt}}}\\n"'"""
    return (
        f"Without a chat template, column {shape.prompt} is written in the Alpaca form (### Instruction: … "
        f"### Response:). Without the headings: {bare}."
    )


def glued_note(
    shape: Shape, chat: bool, rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, *, keys: bool = True
) -> str | None:
    """A line where most of ``rows``, encoded ones, have a response that begins in its prompt's last word.
    ``keys``: as of ``alpaca_note``."""
    if chat or shape.kind is not Kind.PAIR or shape.headings:
        return None
    seams = [_seam(row["input_ids"], len(row["prompt_ids"]), tokenizer) for row in rows]
    glued = [seam for seam in seams if seam is not None]
    if not glued or 2 * len(glued) <= len(seams):
        return None
    way_out = "End them with one."
    if keys and shape.template is not None:
        way_out = "End data.prompt_template with one."
    elif keys and shape.context is not None:
        way_out = f"End columns {shape.prompt} and {shape.context} with one."
    elif keys and shape.prompt is not None and re.fullmatch(r"[\w -]+", shape.prompt):
        way_out = f"""Each ends with one by $'data.prompt_template="{{{shape.prompt}}}\\n"'."""
    return (
        f"Prompts end without a blank or a line break, and responses follow at once (…{glued[0]}…). {way_out}"
    )


def _seam(ids: Sequence[int], prompt: int, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text around the place where a response of these ids begins, if nothing stands between it and its
    prompt; None where a blank, a line break or a sign does, and in scripts that write no blanks."""
    around = list(ids[max(0, prompt - SEAM) : prompt + SEAM])
    before, whole = (
        str(tokenizer.decode(part, skip_special_tokens=True))
        for part in (around[: min(prompt, SEAM)], around)
    )
    if not before or not whole.startswith(before) or len(whole) == len(before):
        return None
    last, first = before[-1], whole[len(before)]
    if any(unicodedata.name(letter, "").startswith(WITHOUT_BLANKS) for letter in (last, first)):
        return None
    ends = last.isalnum() or unicodedata.category(last) in ("Pe", "Pf", "Po")
    begins = first.isalnum() or unicodedata.category(first) in ("Ps", "Pi") or first in "\"'"
    return one_line(whole) if ends and begins else None


def unread_notes(config: ColumnsConfig, shape: Shape) -> list[str]:
    """On each column that is named as a part of the prompt, of which rows of this shape have nothing."""
    read = template_fields(shape.template)
    if shape.kind is Kind.PAIR and shape.template is None:
        return []
    why = "data.prompt_template does not name it" if shape.template else f"rows are {shape.kind.value}"
    return [
        f"data.{key}={name} is not read: {why}."
        for key in ("prompt_column", "context_column")
        if (name := getattr(config, key)) is not None and name not in read
    ]


def context_note(shape: Shape, row: Mapping[str, object], way_out: str = CONTEXT) -> str | None:
    """A line where ``row``, the first of its split, has more texts, which may be what prompts are about."""
    if shape.kind is not Kind.PAIR or shape.template or shape.context:
        return None
    own = (shape.prompt, shape.response)
    texts = [name for name, cell in row.items() if isinstance(cell, str) and len(cell.split()) > 1]
    left = [name for name in texts if name not in own]
    return f"Columns that are not read: {', '.join(left)}. {way_out}" if left else None


def form_of(shape: Shape, chat: bool) -> str:
    """How rows of this shape are written for the model."""
    if shape.kind is Kind.TOKENS:
        return "as token ids"
    if shape.kind is Kind.TEXT:
        return "as raw text"
    if chat or shape.kind is Kind.MESSAGES:
        return "by the chat template"
    if shape.template is not None:
        return "by data.prompt_template"
    return "in the Alpaca form" if shape.headings else "as they are"


def form_note(forms: Mapping[str, str]) -> str | None:
    """On splits that are written in another form (`form_of`) than the training rows."""
    other = [f"{split} rows are written {form}" for split, form in forms.items() if form != forms["train"]]
    if not other:
        return None
    return (
        f"{' and '.join(other)}, training rows {forms['train']}: one form is learnt, another scored. "
        "Give all files the same columns."
    )


def _ids(rows: Dataset) -> Iterator[bytes]:
    """The token ids of each row, as bytes."""
    for chunk in rows.data.table.column("input_ids").chunks:
        ids, ends = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        yield from (ids[start:end].tobytes() for start, end in pairwise(ends))


def _total(counts: Counts) -> int:
    return sum(some for some, _ in counts.values())


def _listed(counts: Counts) -> str:
    """``10 of 36 training rows and 1 of 2 test rows``."""
    names = {"train": "training"}
    parts = [
        f"{some:,} of {whole:,} {names.get(split, split)} row{'' if whole == 1 else 's'}"
        for split, (some, whole) in counts.items()
        if some
    ]
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
