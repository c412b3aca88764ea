"""The turns of a chat: from a cell, as readable text, and back from such text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distil.data.base import MalformedRow
from distil.data.codec import ROLES, Message
from distil.data.columns import as_text

SHAREGPT = {"human": "user", "gpt": "assistant"}
"""Roles under the names that ShareGPT gives them."""

SYSTEM = ("system", "developer")
"""Roles of a message that comes before all others."""


def read_messages(value: object, where: str) -> list[Message]:
    """Chat turns from a cell. Raises MalformedRow where it is not a list of {role, content}, or of ShareGPT's
    {from, value}."""
    wanted = f"{where}: a list of {{role, content}} is wanted"
    if not isinstance(value, (list, tuple)):
        raise MalformedRow(f"{wanted}, it holds {type(value).__name__}.")
    messages: list[Message] = []
    for turn in value:
        if isinstance(turn, dict) and turn.keys() >= {"from", "value"} and "role" not in turn:
            turn = {"role": SHAREGPT.get(str(turn["from"]), turn["from"]), "content": turn["value"]}
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


def as_conversation(messages: Sequence[Message]) -> str:
    """Turns as readable text; of one turn its content alone."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def as_turns(text: str) -> list[Message]:
    """The turns that ``as_conversation`` wrote so, whose last is no answer; else one turn of the user.

    A line within a turn that begins like another one is read as that.
    """
    start, *pieces = re.split(rf"^({'|'.join(ROLES)}): ", text, flags=re.MULTILINE)
    roles, contents = pieces[::2], pieces[1::2]
    if start or len(roles) < 2 or roles[-1] == "assistant":
        return [{"role": "user", "content": text}]
    inner = [content.removesuffix("\n") for content in contents[:-1]]
    return [
        {"role": role, "content": content}
        for role, content in zip(roles, [*inner, contents[-1]], strict=True)
    ]


def in_turns(prompts: Sequence[str]) -> bool:
    """Whether prompts of a run may have several turns: one of those that it wrote has, or it wrote none."""
    return not prompts or any(len(as_turns(prompt)) > 1 for prompt in prompts)


def system_of(prompts: Sequence[str]) -> str | None:
    """The system message of the first of these prompts, where all of them begin with one."""
    first = [as_turns(prompt)[0] for prompt in prompts]
    has = bool(first) and all(turn["role"] in SYSTEM for turn in first)
    return first[0]["content"] if has else None
