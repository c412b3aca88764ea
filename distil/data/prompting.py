"""Prompts of one's own, written as a run's data write theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distil.data.base import ColumnsConfig
from distil.data.codec import Message, TemplateRefuses
from distil.data.columns import ALPACA, Kind, Shape, is_written_by, template_fields
from distil.data.encode import Encoder, closed
from distil.data.encoded import Dropped
from distil.data.turns import SYSTEM, as_turns
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNLIMITED = 2**31
ANSWER = "."
"""Rows have a response; what is made of it is thrown away."""
_ANSWERED = {"role": "assistant", "content": ANSWER}
HEADING = ALPACA.partition("{")[0]


def likely_shape(config: ColumnsConfig, written: Sequence[str]) -> Shape:
    """The shape of rows of which no record is left: by what the config names, or how prompts were written.

    ``written``: prompts as samples show them, headings and all.
    """
    if config.text_column:
        return Shape(Kind.TEXT, text=config.text_column)
    if config.messages_column:
        return Shape(Kind.MESSAGES, messages=config.messages_column)
    template = config.prompt_template
    headed = template is None and bool(written) and all(prompt.startswith(HEADING) for prompt in written)
    return Shape(Kind.PAIR, "prompt", "response", template=template, headings=headed)


def ending_of(written: Sequence[str]) -> str:
    """The blanks and line breaks that all of these prompts end with: a model that has always seen them there
    does not begin its answer without them."""
    blanks = [prompt[len(prompt.rstrip()) :] for prompt in written]
    shortest = min(blanks, key=len, default="")
    common = (shortest[start:] for start in range(len(shortest) + 1))
    return next((end for end in common if all(blank.endswith(end) for blank in blanks)), "")


def prompt_rows(
    config: ColumnsConfig,
    shape: Shape,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    ending: str = "",
    context: str = "",
    system: str = "",
    turns: bool = False,
) -> list[dict[str, Any]]:
    """A row ready to be answered for each prompt: chat template, headings and BOS as in training.

    ``ending`` closes prompts that are written as they are, where they lack it; ``context`` and ``system`` (a
    message) go with each. A prompt that has the headings or the words of the template already, as a
    sample shows it, is taken as it stands; with ``turns`` so is one that is written in turns.

    Raises InputError for an empty prompt, for one that is not written as the run's template of several
    columns has it, and for a context or a system message where its rows can have none.
    """
    kind = "a prompt column" if shape.kind is Kind.PAIR else f"{shape.kind.value} rows"
    written = "data.prompt_template" if shape.template is not None else kind
    if system and shape.kind is not Kind.MESSAGES:
        raise InputError(
            f"--system: the prompts of this run are written from {written}, without such a message."
        )
    config = replace(config, max_length=UNLIMITED, truncation="response", score="response")
    if context and shape.template is not None:
        raise InputError(
            "--context: the prompts of this run are written by "
            f"data.prompt_template={config.prompt_template!r}. Write the whole prompt so, what it is about "
            "in its place."
        )
    if context and shape.kind is not Kind.PAIR:
        raise InputError(
            f"--context: the prompts of this run are written from {written}, without a context. Write it "
            "into the prompt."
        )
    if context:
        shape = replace(shape, context=shape.context or "context")
    if shape.kind is Kind.TEXT or shape.kind is Kind.TOKENS:
        # Text is gone on from as it stands.
        config = replace(config, chat_template=False)
        shape = Shape(Kind.PAIR, "prompt", "response")
    fields = template_fields(shape.template)
    encoder = Encoder(config, shape, tokenizer, "--prompt", ending)
    bare = Shape(Kind.PAIR, "prompt", "response") if shape.kind is Kind.PAIR else shape
    as_it_stands = Encoder(config, bare, tokenizer, "--prompt")
    found = []
    for number, prompt in enumerate(prompts):
        given = not context and is_written(encoder, prompt)
        if shape.kind is Kind.MESSAGES:
            asked = _asked(prompt, system, turns)
            row: dict[str, Any] = {shape.messages or "": [*asked, _ANSWERED]}
            given = len(asked) > 1 + bool(system)
        elif given:
            row = {"prompt": closed(prompt, _end_of(shape)), "response": ANSWER}
        elif len(fields) > 1:
            raise InputError(
                f"--prompt: the prompts of this run are written from several columns ({', '.join(fields)}) "
                f"by data.prompt_template={config.prompt_template!r}. Write the whole prompt so, their texts "
                "in their places, or evaluate a file with those columns: distil evaluate RUN --data FILE."
            )
        else:
            row = _raw(shape, fields, prompt, context)
        try:
            (encoded,) = (as_it_stands if given else encoder).encode([row], [number])
        except TemplateRefuses as error:
            way_out = "Ask without --system." if system else "Ask in one turn of the user."
            raise InputError(f"--prompt: {error.reason}. {way_out}") from error
        if isinstance(encoded, Dropped):
            raise InputError(f"--prompt {prompt!r}: {encoded.reason}. Give a text.")
        ids = encoded.ids[: encoded.prompt]
        found.append({"prompt_ids": ids, "prompt": prompt, "response": "", "slots": None, "headed": given})
    return found


def _asked(prompt: str, system: str, turns: bool) -> list[Message]:
    """The turns of a prompt of one's own. Raises InputError for two system messages."""
    asked: list[Message] = as_turns(prompt) if turns else [{"role": "user", "content": prompt}]
    if system and asked[0]["role"] in SYSTEM:
        raise InputError("--system: the prompt begins with a system message of its own. Give one of the two.")
    return [*([{"role": "system", "content": system}] if system else []), *asked]


def _raw(shape: Shape, fields: Sequence[str], prompt: str, context: str) -> dict[str, Any]:
    row = {(fields[0] if fields else shape.prompt or ""): prompt, shape.response or "": ANSWER}
    return row | ({shape.context: context} if shape.context else {})


def _end_of(shape: Shape) -> str:
    """The blanks and line breaks that close a prompt with the headings or by the template of ``shape``."""
    whole = ALPACA if shape.template is None else shape.template
    return whole[len(whole.rstrip()) :]


def is_written(encoder: Encoder, prompt: str) -> bool:
    """Whether ``prompt`` has the headings, or the words of the template, already that ``encoder`` would put
    around it."""
    if encoder.shape.template is not None:
        return is_written_by(encoder.shape.template, prompt)
    return encoder.shape.headings and encoder.chat is None and prompt.lstrip().startswith(HEADING)
