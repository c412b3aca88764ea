"""Text to ids: data is data, never markup; chat templates; where a response ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from distil.data.base import MalformedRow
from distil.system.printable import one_line
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""One chat turn: ``role`` and ``content``."""
ROLES = ("system", "developer", "user", "assistant", "tool")

_MARK = "\ue000{}\ue001"
"""Stands for a message's content while a template is rendered (private use: no template contains it)."""
_BLANK = "\u2003"
"""Stands for the blanks at both ends of a content: a template that trims takes it for one."""
_MARKED = "".join([f"({_BLANK}?)", _MARK.format(r"(\d+)"), f"({_BLANK}?)"])


class TemplateRefuses(MalformedRow):
    """The tokenizer's chat template has no form for the turns of a row; ``reason`` tells without the row."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Codec:
    """A tokenizer, and what it does not say itself: how sequences start, and what text may not spell.

    ``split_special_tokens``: whether special tokens that the text of data spells are characters there.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, split_special_tokens: bool = True) -> None:
        self.tokenizer = tokenizer
        self.splits = split_special_tokens
        if tokenizer.eos_token_id is None:
            raise InputError(
                "model.teacher.path: its tokenizer has no EOS token, so no response could end. Set eos_token "
                "in its tokenizer_config.json."
            )
        self.eos_id: int = tokenizer.eos_token_id
        added = tokenizer.added_tokens_decoder
        self.special_ids = {token_id for token_id, token in added.items() if token.special}
        self.special_ids |= set(tokenizer.all_special_ids)
        self.guarded = self.special_ids - {getattr(tokenizer, "unk_token_id", None)}
        """Ids that no text of data may come to (an unknown word may be any word)."""
        self._spelt: dict[int, list[int]] = {}
        specials = {token.content for token in added.values() if token.special}
        self._special_text = _any_of(specials | set(tokenizer.all_special_tokens))

    def guard(self, ids: Iterable[int]) -> None:
        """Take further tokens for special: those by which a chat template writes roles, marked so or not."""
        self.guarded |= set(ids)
        contents = {str(self.tokenizer.convert_ids_to_tokens(i)) for i in self.guarded}
        self._special_text = _any_of(contents | set(self.tokenizer.all_special_tokens))

    @cached_property
    def start_ids(self) -> list[int]:
        """What this tokenizer puts before a sequence (Llama's BOS; nothing for GPT-2)."""
        plain = self.data(["a"])[0]
        full = list(self.tokenizer("a")["input_ids"])
        starts = [i for i in range(len(full) - len(plain) + 1) if full[i : i + len(plain)] == plain]
        return full[: starts[0]] if starts else []

    def data(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of text from a data set. ``<|im_end|>`` or ``</s>`` in it are characters, not tokens."""
        encoded = self._encode(texts, split_special_tokens=self.splits)
        if not self.splits:
            return encoded
        # Vocabularies that list a special token as a word, too, come to it from its letters.
        return [ids if self.guarded.isdisjoint(ids) else self._broken(ids) for ids in encoded]

    def _broken(self, ids: Sequence[int]) -> list[int]:
        """``ids`` with the letters of each guarded token in its place."""
        return [new for old in ids for new in (self._letters(old) if old in self.guarded else (old,))]

    def _letters(self, token_id: int) -> list[int]:
        if token_id not in self._spelt:
            text = str(self.tokenizer.convert_ids_to_tokens(token_id))
            whole = [
                self._within(text[:1]) + self._within(text[1:]),
                [i for c in text for i in self._within(c)],
            ]
            unknown = [] if self.tokenizer.unk_token_id is None else [self.tokenizer.unk_token_id]
            self._spelt[token_id] = next((ids for ids in whole if self.guarded.isdisjoint(ids)), unknown)
        return self._spelt[token_id]

    def _within(self, text: str) -> list[int]:
        """Ids of ``text`` where it stands within a word: without the blank that some put before all text."""
        before, after = self._encode(["a", f"a{text}"], split_special_tokens=True)
        if after[: len(before)] == before:
            return after[len(before) :]
        return self._encode([text], split_special_tokens=True)[0]

    def markup(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of text from a template, where ``<|im_end|>`` is the token."""
        return self._encode(texts, split_special_tokens=False)

    def _encode(self, texts: Sequence[str], split_special_tokens: bool) -> list[list[int]]:
        if not texts:
            return []
        with _its_own_failure():
            encoded = self.tokenizer(
                list(texts),
                add_special_tokens=False,
                split_special_tokens=split_special_tokens,
                return_attention_mask=False,
                padding=False,
                truncation=False,
                verbose=False,
            )
        return [list(ids) for ids in encoded["input_ids"]]

    def kept_start(self, prompt_ids: Sequence[int]) -> int:
        """How many of a prompt's first ids survive when it loses its left: its BOS, if it has one."""
        bos = self.tokenizer.bos_token_id
        return int(bos is not None and list(prompt_ids[:1]) == [bos])

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text for readers: special tokens left out, spaces untouched."""
        with _its_own_failure():
            decoded = self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return decoded if isinstance(decoded, str) else "".join(decoded)

    def in_markup(self, text: str) -> bool:
        """Whether ``text`` of a template holds special tokens."""
        return self._special_text.search(text) is not None

    def spelt(self, text: str) -> str | None:
        """The first guarded token that ``text`` spells as it is, where that makes no token of it."""
        if not self.splits:
            return None
        t = self.tokenizer
        unknown = t.unk_token if t.unk_token != t.eos_token else None  # which a word may well be
        return next((match[0] for match in self._special_text.finditer(text) if match[0] != unknown), None)

    def holds_special(self, text: str) -> bool:
        """Whether ``text`` spells one of the guarded tokens where that makes no token of it."""
        if not self.splits:
            return False
        return any(self._special_text.search(form) is not None for form in self._forms(text))

    def _forms(self, text: str) -> Iterator[str]:
        """``text`` as it is, and as the tokenizer reads it (``＜／s＞`` may be ``</s>`` to it)."""
        yield text
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None and backend.normalizer is not None and text:
            yield backend.normalizer.normalize_str(text)


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")


@contextmanager
def _its_own_failure() -> Iterator[None]:
    """What a damaged tokenizer raises, as an InputError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # tokenizers raises a bare Exception
        raise InputError(
            f"model.student.path: its tokenizer cannot read this text: {type(error).__name__}: "
            f"{one_line(error)}. Copy the tokenizer's files again."
        ) from error


class Chat:
    """The tokenizer's chat template: prompts up to the assistant's header, responses up to the turn's end."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        user = {"role": "user", "content": _MARK.format(0)}
        prompt = self._render([user], "data.chat_template")
        full = self._render(
            [user, {"role": "assistant", "content": _MARK.format(1)}], "data.chat_template", False
        )
        head, found, tail = full.partition(_MARK.format(1))
        if not found:
            raise InputError(
                "data.chat_template: the tokenizer's chat template does not write the assistant's text. "
                "Set data.chat_template=false."
            )
        self.codec.guard(self._role_markers(full, prompt, head))
        self.opening = head.removeprefix(prompt) if head.startswith(prompt) else ""
        """What the template writes between prompt and the assistant's own words (Qwen3: an empty thought)."""
        self.turn_end_ids = self._turn_end(tail)
        """What closes the assistant's turn (``<|im_end|>``): learnt, and nothing is scored after it."""

    def _role_markers(self, full: str, prompt: str, head: str) -> set[int]:
        """The added tokens by which the template writes turns. Some families do not mark theirs as special;
        what it opens an answer with (an empty thought) is the answer's own."""
        added = self.codec.tokenizer.added_tokens_decoder
        opening = head.removeprefix(prompt) if head.startswith(prompt) else ""
        written, opened = map(set, self.codec.markup([full, opening]))
        return {i for i in written - opened if i in added}

    def _turn_end(self, tail: str) -> list[int]:
        ids = self.codec.markup([tail])[0]
        ends = [index for index, token_id in enumerate(ids) if token_id in self.codec.special_ids]
        return ids[: ends[0] + 1] if ends else [self.codec.eos_id]

    def prompts(self, conversations: Sequence[Sequence[Message]], wheres: Sequence[str]) -> list[list[int]]:
        """Ids of each conversation, closed by the header that opens the assistant's turn.

        Equal to ``apply_chat_template``, save that special tokens spelt inside a message stay characters, so
        that a row cannot end its turn and speak in another role.
        """
        placed = list(zip(conversations, wheres, strict=True))
        ids = self.codec.markup([self._render(messages, where) for messages, where in placed])
        for index, (messages, where) in enumerate(placed):
            if any(self.codec.holds_special(message["content"]) for message in messages):
                ids[index] = self._guarded(messages, where)
        return ids

    def responses(self, contents: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Ids of the assistant's words (outer blanks removed) and of what closes the turn."""
        stripped = [content.strip() for content in contents]
        if self.codec.in_markup(self.opening):
            opening = self.codec.markup([self.opening])[0]
            bodies = [opening + ids for ids in self.codec.data(stripped)]
        else:
            bodies = self.codec.data([self.opening + content for content in stripped])
        return [(body, self.turn_end_ids) for body in bodies]

    def _guarded(self, messages: Sequence[Message], where: str) -> list[int]:
        # Render with marks in place of the contents, so that template and data are told apart for certain. Of
        # the blanks around a mark those are left that the template leaves of a content's own.
        marks = [f"{_BLANK}{_MARK.format(index)}{_BLANK}" for index in range(len(messages))]
        marked = [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
        *pieces, end = re.split(_MARKED, self._render(marked, where))
        ids: list[int] = []
        for markup, left, index, right in zip(*(pieces[start::4] for start in range(4)), strict=True):
            content = messages[int(index)]["content"]
            content = content if left else content.lstrip()
            content = content if right else content.rstrip()
            ids += self.codec.markup([markup])[0] if markup else []
            ids += self.codec.data([content])[0]
        return ids + (self.codec.markup([end])[0] if end else [])

    def _render(self, messages: Sequence[Message], where: str, generation_prompt: bool = True) -> str:
        try:
            return str(
                self.codec.tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tokenize=False,
                    add_generation_prompt=generation_prompt,
                )
            )
        except Exception as error:  # a template is a program: it raises what it likes
            roles = ", ".join(message["role"] for message in messages)
            told = str(error)[:300] or type(error).__name__
            reason = f"the tokenizer's chat template refuses turns by {roles}: {told}"
            way_out = "Change the rows, or use data.prompt_column with data.chat_template=false."
            raise TemplateRefuses(f"{where}: {reason}. {way_out}", reason) from error
