"""The README beside a student that the library saved: what it is, how it was made, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.cards.text import code, front, plain
from distil.data.columns import Kind, Shape, prompt_of
from distil.system.files import read_json

if TYPE_CHECKING:
    from distil.api.past import Past

CONFIG = "distillation_config.json"
"""Beside a saved student: the DistillationConfig that made it."""
ROWS = "distillation_rows.json"
"""Beside one that was trained on text: the shape of its rows, which says how prompts are written."""
_ASKING = "\n## How to ask it\n\n"


def library_card(
    kind: str,
    teacher: str,
    student: str,
    past: Past,
    command: str,
    base: Mapping[str, Any] | None,
    asked: str | None,
) -> str:
    """The card.

    Args:
        kind: the class of the library, such as ``KnowledgeDistillation``.
        teacher: what the config calls it.
        student: the same, of the student before training.
        past: what became of the student.
        command: the equivalent command line, for where there is one.
        base: what an adapter stands on; None: all of a model is here.
        asked: of ``asking``.
    """
    return f"""{front("transformers" if base is None else "peft")}
# {plain(_named(student))}, a student of {plain(_named(teacher))}

{_made(kind, past, command)}

## How to load it

{_loading(base)}{f"{_ASKING}{asked}" if asked else ""}"""


def asking(shape: Shape, *, chat: bool) -> str:
    """How a prompt is written for a student that was trained on rows of text of this shape."""
    if shape.kind is Kind.TEXT:
        return "It was trained on text: it goes on from any.\n"
    if shape.kind is Kind.MESSAGES or chat:
        return "Its prompts were written by the tokenizer's chat template: `tokenizer.apply_chat_template`.\n"
    columns = [name for name in (shape.prompt, shape.context) if name]
    written = prompt_of({name: f"{{{name}}}" for name in columns}, shape, chat=False, where="the card")
    return f"Its prompts were written so, names in braces being columns:\n\n{code(written, 'text')}\n"


def saved_shape(folder: Path) -> Shape | None:
    """The shape of the rows that the student in ``folder`` was trained on; None where it is not known."""
    try:
        return Shape.read(read_json(folder / ROWS))
    except (OSError, ValueError):
        return None


def _named(model: str) -> str:
    """A name of the hub as it is, a folder of this machine by its own name."""
    return Path(model).name if Path(model).expanduser().is_absolute() else model


def _made(kind: str, past: Past, command: str) -> str:
    if not past.trained:
        place = next(iter(past.came.values()), None)
        where = "the model that was given" if place is None else f"what was loaded from {place}"
        return f"Not trained by distil-runner here: saved by `llm_distil.{kind}`, it is {where}."
    start = f", from {past.keys['adapter' if 'adapter' in past.keys else 'path']} on" if past.keys else ""
    told = f"""Distilled with the library of distil-runner{start}. `{CONFIG}` beside this holds its settings:

```python
from llm_distil import DistillationConfig, {kind}

config = DistillationConfig.load("{CONFIG}")
{kind}(teacher, student, config, tokenizer).train(train_dataset)
```
"""
    if past.untold:
        return f"{told}\nNo command line says the same: {'; '.join(past.untold)}."
    return f"""{told}
The same on the command line, where DATA is a folder that `DatasetDict.save_to_disk` wrote, or a hub name:

{code(command, "bash")}"""


def _loading(base: Mapping[str, Any] | None) -> str:
    if base is None:
        return """```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(FOLDER)
```
"""
    path = base["model"]["path"]
    return f"""An adapter ({base["peft"]}) on {plain(path)}:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({json.dumps(path)}), FOLDER)
```

As one plain model, where its kind can be merged:

{_merging(base)}"""


def _merging(base: Mapping[str, Any]) -> str:
    if "base_print" in base:
        return """```bash
distil merge FOLDER --output MERGED
```
"""
    return """```python
model.merge_and_unload().save_pretrained(MERGED)
```
"""
