"""Write distil/config/training_arguments.py from the installed ``transformers.TrainingArguments``.

    python scripts/generate_trainer_schema.py            # rewrite the file
    python scripts/generate_trainer_schema.py --check    # exit 1 if it would change

The file is committed, so that composing a config needs no torch. A test holds it to transformers.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "distil" / "config" / "training_arguments.py"
LINE = 110

HEADER = '''"""Every field of ``transformers.TrainingArguments`` that a user may set. Generated: do not edit.

Rewrite with ``python scripts/generate_trainer_schema.py``. None means "not set": transformers' own default.
Fields that the runner sets itself are in ``distil.config.trainer.OURS`` and not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
'''


def annotation(hint: Any) -> str:
    """The type as OmegaConf can hold it, ``Any`` where it cannot (unions of containers, objects)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        if any(_is_enum(part) for part in parts):  # SchedulerType | str: a name
            return "str"
        return annotation(parts[0]) if len(parts) == 1 else "Any"
    if hint in (bool, int, float, str):
        return str(hint.__name__)
    if _is_enum(hint):
        return "str"
    if hint == list[str]:
        return "list[str]"
    return "Any"  # OmegaConf cannot merge a dict into an Optional[Dict] that is None


def choices(hint: Any) -> tuple[str, ...]:
    """The names of the enum in ``hint``, empty where there is none."""
    for part in (hint, *typing.get_args(hint)):
        if _is_enum(part):
            return tuple(str(member.value) for member in part)
    return ()


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def generate() -> str:
    """The text of the generated module."""
    from transformers import TrainingArguments

    sys.path.insert(0, str(TARGET.parents[2]))
    from distil.config.trainer import OURS

    hints = typing.get_type_hints(TrainingArguments)
    names = [f.name for f in dataclasses.fields(TrainingArguments) if f.init and f.name not in OURS]
    lines = [HEADER, "", "@dataclass", "class TrainingFields:"]
    lines += [
        '    """Fields under their own names, in the order of ``transformers.TrainingArguments``."""',
        "",
    ]
    for name in names:
        kind = annotation(hints[name])
        lines.append(f"    {name}: {kind} = None" if kind == "Any" else f"    {name}: {kind} | None = None")
    lines += ["", "", "CHOICES: dict[str, tuple[str, ...]] = {"]
    listed = {f.name: tuple(f.metadata.get("choices", ())) for f in dataclasses.fields(TrainingArguments)}
    for name in names:
        if options := choices(hints[name]) or listed[name]:
            lines += _entry(name, options)
    lines += ["}", '"""What a field that is a name may be."""', ""]
    return "\n".join(lines)


def _entry(name: str, options: tuple[str, ...]) -> list[str]:
    """One entry of CHOICES as ruff formats it: on one line where it fits, else one choice a line."""
    quoted = [f'"{option}"' for option in options]
    line = f'    "{name}": ({", ".join(quoted)}),'
    if len(line) <= LINE:
        return [line]
    return [f'    "{name}": (', *(f"        {option}," for option in quoted), "    ),"]


def main() -> int:
    text = generate()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
