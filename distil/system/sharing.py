"""What may leave this machine: no secret, and of a place on it no more than its last part."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distil.system.files import read_json, write_json
from distil.system.redact import redact
from distil.types import RunFailed

_PLACE = re.compile(r"(?:file://)?~?/(?:[^/\n]+/)+(?P<name>[^/\n]+)/?")
"""A value that is an absolute path, of which a reader elsewhere needs the last part alone."""
_IN_WORD = re.compile(r"(?P<before>^|[=\[,:])~?/(?:[^/,\]]+/)+(?P<name>[^/,\]]+)/?")
"""The same within a word of a command line: ``key=[/data/a,/data/b]``."""
_ELSEWHERE = "/path/to/"
_OF_MODELS = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Words of a model, which tell of no machine and may look like anything."""
_LOADED_HERE = ("is_local", "local_files_only")
"""Keys of tokenizers that say how they were loaded."""


def shareable(value: Any, key: str = "") -> Any:
    """A copy of ``value`` (nested dicts and lists) without secrets, its absolute paths ``/path/to/NAME``."""
    if isinstance(value, dict):
        return {name: shareable(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shareable(item, key) for item in value]
    value = redact(value, key)
    place = _PLACE.fullmatch(value) if isinstance(value, str) else None
    return value if place is None else _ELSEWHERE + place["name"]


def shareable_command(command: str) -> str:
    """Command lines (one a line) as ``shareable`` makes their values."""
    lines: list[str] = []
    begun = ""  # a line whose quotes hold a line break goes on in the next
    for line in command.splitlines():
        try:
            words = shlex.split(begun + line)
        except ValueError:
            begun += f"{line}\n"
            continue
        lines.append(" ".join(map(_word, words)))
        begun = ""
    lines += [" ".join(map(_word, line.split())) for line in begun.splitlines()]
    return "\n".join(lines)


def _word(word: str) -> str:
    key, equals, value = word.partition("=")
    told = _IN_WORD.sub(rf"\g<before>{_ELSEWHERE}\g<name>", str(redact(value if equals else word, key)))
    told = f"{key}={told}" if equals else told
    return told if re.fullmatch(r"[\w@%+=:,./*…-]+", told) else shlex.quote(told)


def places_of(config: Any, *folders: Path) -> list[str]:
    """Absolute paths that ``config`` names, ``folders`` and the home folder; longer ones may hold shorter."""
    found = {str(folder.absolute()) for folder in (*folders, Path.home())} | set(_paths(config))
    return sorted((place for place in found if place.strip("/")), key=len, reverse=True)


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, str) and value.startswith("/") and _PLACE.fullmatch(value):
        yield value.rstrip("/")


def scrubbed(text: str, places: Sequence[str]) -> str:
    """``text`` without secrets, and without ``places``, wherever in it they stand."""
    text = str(redact(text))
    for place in places:
        text = re.sub(re.escape(place) + r"(?![\w.-])", _ELSEWHERE + Path(place).name, text)
    return text


def clean_settings(folder: Path) -> None:
    """Take out of the JSON files in ``folder`` where their model or tokenizer was loaded from here."""
    for file in folder.rglob("*.json"):
        if file.name in _OF_MODELS:
            continue
        content = read_json(file)
        if not isinstance(content, dict):
            continue
        kept = {key: value for key, value in content.items() if key not in _LOADED_HERE}
        kept |= {key: shareable(value) for key, value in kept.items() if key.endswith("name_or_path")}
        if kept != content:
            write_json(file, kept)


def check_shareable(folder: Path, places: Sequence[str]) -> None:
    """Raise RunFailed where a text in ``folder`` holds a secret or names one of ``places``."""
    for file in filter(Path.is_file, folder.rglob("*")):
        if file.suffix not in (".json", ".yaml", ".md", ".jinja", ".py", ".txt") or file.name in _OF_MODELS:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if (clean := scrubbed(text, places)) != text:
            pairs = zip(text.splitlines(), clean.splitlines(), strict=False)
            line = next((i for i, (one, other) in enumerate(pairs, 1) if one != other), 1)
            raise RunFailed(
                f"{file.relative_to(folder)}, line {line}, holds a secret or names a folder of this machine: "
                "nothing was written. Take it out of that file in the student's folder, and export again."
            )
