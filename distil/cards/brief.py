"""Cards beside models that stay here: what it is, and the command that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distil.cards.text import code, front, plain


def run_card(title: str, command: str, base: Mapping[str, Any] | None) -> str:
    """Of a run's student; ``base`` says what an adapter stands on, None that there is no adapter."""
    how = ""
    if base is not None:
        stands_on = f"{base['model']['path']}{_of_which(base['kept_layers'])}"
        how = f"""
## What is in here

An adapter ({base["peft"]}) on {plain(stands_on)}. `distil generate` and `distil evaluate`
load the run that it belongs to, base and all; `distil merge` writes base and adapter as one plain model,
where they can be merged, and with `--base-only` the base alone:

```
distil merge RUN_FOLDER --output FOLDER
```
"""
    return f"""{front("transformers" if base is None else "peft")}
# {plain(title)}

A student distilled with distil-runner. The command that made it:

{code(command)}
{how}
Its scores beside those of its teacher and of the untouched student are in `results.json` of the run.
For others, `distil export RUN_FOLDER` writes it with a card that shows them and names no folder of yours.
"""


def base_card(base: str, kept: Sequence[int] | None, adapter: tuple[str, str], commands: str) -> str:
    """Of the model under an adapter, written alone.

    Args:
        base: where it comes from.
        kept: the layers that are left of it; None: all.
        adapter: its kind, and an expression for its folder.
        commands: those that made it.
    """
    kind, folder = adapter
    return f"""{front("transformers")}
# The base under an adapter: {plain(base)}{_of_which(kept)}

Untouched by distillation. The adapter ({kind}) goes on it:
`PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(THIS_FOLDER), {folder})`.
{_made_by(commands)}"""


def merged_card(title: str, base: str, kind: str, command: str) -> str:
    """Of an adapter of the library, merged into its base."""
    return f"""{front("transformers")}
# {plain(title)}

An adapter ({kind}) that the library of distil-runner trained, merged into its base, {plain(base)}. How it was
trained is in the README of the adapter. {_made_by(command)}"""


def _of_which(kept: Sequence[int] | None) -> str:
    return "" if kept is None else f", of which the layers {', '.join(map(str, kept))} are kept"


def _made_by(commands: str) -> str:
    many = len(commands.splitlines()) > 1
    return f"The command{'s' if many else ''} that wrote this folder:\n\n{code(commands)}\n"
