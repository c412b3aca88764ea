"""The Python blocks of a guide: found, their open names told, the slips that may be mended mended."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

NAMES = 'teacher_model_name="gpt2-medium", student_model_name="gpt2", '


@dataclass(frozen=True)
class Block:
    """One Python block: its number in the guide, the heading over it, its text."""

    number: int
    heading: str
    source: str

    @property
    def is_signature(self) -> bool:
        """Whether it shows a class as a reader is to see it, and is no program."""
        return re.search(r"^class \w+:", self.source, re.MULTILINE) is not None

    @property
    def label(self) -> str:
        """For the name of a test."""
        return f"{self.number:02}-{re.sub(r'[^a-z0-9]+', '-', self.heading.lower()).strip('-')}"


def blocks_of(guide: Path) -> list[Block]:
    """Every Python block of ``guide``, in order."""
    found: list[Block] = []
    heading, lines, inside = "", [], False
    for line in guide.read_text(encoding="utf-8").splitlines():
        if inside and line.strip() == "```":
            found.append(Block(len(found) + 1, heading, textwrap.dedent("\n".join(lines)) + "\n"))
            inside = False
        elif inside:
            lines.append(line)
        elif line.strip() == "```python":
            lines, inside = [], True
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    return found


def open_names(source: str) -> set[str]:
    """The names that a block uses before it binds them, or never binds."""
    bound, opened, inside = set(dir(builtins)), set(), set()
    for statement in ast.parse(source).body:
        used, stored = _names(statement, ast.Load), _names(statement, ast.Store)
        if isinstance(statement, ast.FunctionDef):  # runs later, when all is bound
            inside |= used - stored - {argument.arg for argument in statement.args.args}
            bound.add(statement.name)
            continue
        loops = [node for node in ast.walk(statement) if isinstance(node, (ast.comprehension, ast.With))]
        opened |= used - bound - {name for loop in loops for name in _names(loop, ast.Store)}
        bound |= stored | _imported(statement)
    return opened | (inside - bound)


def _names(node: ast.AST, kind: type[ast.expr_context]) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}


def _imported(node: ast.AST) -> set[str]:
    aliases = node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []
    return {(alias.asname or alias.name).partition(".")[0] for alias in aliases}


def mended(source: str, *, gpu: bool) -> tuple[str, set[str]]:
    """``source`` with the slips that may be mended, and which of them were there."""
    plain = {
        "evaluation_strategy": (r"\bevaluation_strategy=", "eval_strategy="),
        "map without batched": (r"dataset\.map\(add_prompts\)", "dataset.map(add_prompts, batched=True)"),
    }
    if not gpu:
        plain |= {"fp16": (r"fp16=True", "fp16=False"), "cuda": (r'device="cuda"', 'device="cpu"')}
    met = set()
    for slip, (pattern, replacement) in plain.items():
        source, count = re.subn(pattern, replacement, source)
        met |= {slip} if count else set()
    for call in _nameless(source):
        lines = source.splitlines(keepends=True)
        line = lines[call.lineno - 1]
        at = call.col_offset + len("DistillationConfig(")
        lines[call.lineno - 1] = f"{line[:at]}{NAMES}{line[at:]}"
        source = "".join(lines)
        met.add("names")
    return source, met


def _nameless(source: str) -> list[ast.Call]:
    """Calls of DistillationConfig that elide the names of the two models, the last first."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "DistillationConfig"
        and not any(keyword.arg == "teacher_model_name" for keyword in node.keywords)
    ]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset), reverse=True)
