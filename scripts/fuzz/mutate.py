"""Valid files made invalid: bytes flipped and cut, JSON nodes swapped, files gone or linked."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml


@dataclass(frozen=True)
class Link:
    """A symbolic link in place of a file."""

    target: str


Files = Mapping[str, "bytes | Link"]
"""What an input is: file names below a folder, and what is in them."""

NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    -(2**63),
    2**64,
    10**400,
    1e308,
    0.5,
    float("inf"),
    float("nan"),
    "",
    " ",
    "0",
    "null",
    "nan",
    "1e999",
    "2024-99-99",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/",
    "~",
    "..",
    "a" * 5000,
    "\0",
    "\x1b[2J",
    "\ud800",
    "\u202e",
    "\U0010ffff",
    "e\u0301" * 99,
    "{x.__class__}",
    "{0}",
    "${oc.env:HOME}",
    "%s%n",
    "<script>alert(1)</script>",
    "[red]",
    "</s>",
    "!!python/object/apply:os.getcwd []",
    ".9999999999d",
    [],
    {},
    [[]],
    [None],
    [[[[[[]]]]]],
    ["a"] * 300,
    [0] * 300,
    {"a": {"b": {}}},
    {"": 0},
    {"name": "x"},
    {"__class__": "x"},
)
BYTES = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"{",
    b"[",
    b'"',
    b"\\u",
    b"\\ud83d",
    b"\r",
    b"\n\n",
    b"1e999",
    b"NaN",
    b"-",
    b"\x80\x04.",
    b"PAR1",
    b"[" * 2000,
    b"{" * 300,
    b"9" * 5000,
    b"&a [*a, *a]",
    b"? ",
    b"!!",
)
LINKS = ("/dev/null", "/dev/zero", "/etc/passwd", "..", "missing", "/")


def mutated(files: Files, chance: Random, other: Files) -> dict[str, bytes | Link]:
    """``files`` with one to four changes; ``other`` lends what may be mixed in."""
    changed = dict(files)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        name = chance.choice(sorted(changed) or ["empty"])
        content = changed.get(name, b"")
        what = chance.random()
        if what < 0.02:
            changed.pop(name, None)
        elif what < 0.03:
            changed[name] = Link(chance.choice(LINKS))
        elif what < 0.04:
            changed[name] = b""
        elif what < 0.06 and other:
            changed[name] = other[chance.choice(sorted(other))]
        elif isinstance(content, bytes):
            changed[name] = _changed(name, content, chance)
    return changed


def _changed(name: str, content: bytes, chance: Random) -> bytes:
    if chance.random() < 0.75:
        for suffixes, change in _SHAPES:
            if name.endswith(suffixes):
                try:
                    return change(content, chance)
                except (
                    ValueError,
                    ArithmeticError,
                    RecursionError,
                    yaml.YAMLError,
                    struct.error,
                    LookupError,
                    TypeError,
                ):
                    break
    return _bytes(content, chance)


def _bytes(content: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    end = min(len(content), at + chance.choice((1, 2, 8, 100)))
    return chance.choice(
        (
            lambda: content[:at],
            lambda: content[:at] + content[end:],
            lambda: content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :],
            lambda: content[:at] + chance.choice(BYTES) + content[at:],
            lambda: content[:at] + content[at:end] * chance.choice((2, 50)) + content[end:],
            lambda: content[:at] + chance.randbytes(end - at) + content[end:],
        )
    )()


def _json(content: bytes, chance: Random) -> bytes:
    return json.dumps(node_changed(json.loads(content), chance)).encode()


def _json_lines(content: bytes, chance: Random) -> bytes:
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    changed = _json(lines[at], chance)
    if chance.random() < 0.5:  # the columns of all rows
        return b"\n".join(_json(line, Random(at)) if line.strip() else line for line in lines)
    return b"\n".join([*lines[:at], changed, *lines[at + 1 :]])


def _yaml(content: bytes, chance: Random) -> bytes:
    return yaml.safe_dump(node_changed(yaml.safe_load(content), chance), allow_unicode=True).encode(
        errors="surrogatepass"
    )


def _tensors(content: bytes, chance: Random) -> bytes:
    """A safetensors file with another header."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.dumps(node_changed(json.loads(content[8 : 8 + size]), chance)).encode()
    told = len(header) if chance.random() < 0.8 else chance.choice((0, 7, 2**40, 2**64 - 1))
    return struct.pack("<Q", told) + header + content[8 + size :]


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[bytes, Random], bytes]], ...] = (
    ((".json",), _json),
    ((".jsonl",), _json_lines),
    ((".yaml",), _yaml),
    ((".safetensors",), _tensors),
)


def node_changed(value: Any, chance: Random) -> Any:
    """``value`` with one node changed, somewhere inside."""
    paths = list(_paths(value, ()))
    path = chance.choice(paths)
    return _at(value, path, lambda node: _node(node, chance), drop=bool(path) and chance.random() < 0.15)


def _paths(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, ...]] = [path]
    if len(path) < 6 and isinstance(value, dict):
        for key in list(value)[:60]:
            inner += _paths(value[key], (*path, key))
    elif len(path) < 6 and isinstance(value, list):
        for index in range(min(len(value), 8)):
            inner += _paths(value[index], (*path, index))
    return inner


def _at(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any], drop: bool) -> Any:
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    if drop and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = _at(value[path[0]], path[1:], change, drop)
    return copy


def _node(node: Any, chance: Random) -> Any:
    what = chance.random()
    if what < 0.6:
        return chance.choice(NASTY)
    if isinstance(node, dict) and node:
        key = chance.choice(sorted(node, key=str))
        renamed = chance.choice((f"{key}x", "", "\ud800", "__proto__", key.upper(), "a.b", "../x", 0))
        return {**node, renamed: node[key]}
    if isinstance(node, list) and node:
        return chance.choice((node * 2, node[::-1], node[:1], [node], [*node, chance.choice(NASTY)]))
    if isinstance(node, bool) or node is None:
        return chance.choice(NASTY)
    if isinstance(node, (int, float)):
        return chance.choice((node + 1, node - 1, -node, node * 1000, node / 3, str(node), [node], 1e30))
    text = str(node)
    at = chance.randrange(len(text) + 1)
    return chance.choice(
        (
            text[:at],
            text[:at] + "\ud800" + text[at:],
            text * 20,
            text.upper(),
            f"../{text}",
            [text],
            text[:at] + str(chance.choice(NASTY)) + text[at:],
            Path("/", text).as_posix(),
        )
    )


def write(files: Files, folder: Path) -> None:
    """Write an input below ``folder``, which is empty."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)


def read(folder: Path, names: list[str] | None = None) -> dict[str, bytes | Link]:
    """The files below ``folder`` (those whose names begin with one of ``names``)."""
    found = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if names is None or name.startswith(tuple(names))
    }
