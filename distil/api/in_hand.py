"""Whether a model in hand is still what the files that it came from hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.api.names import alone
from distil.config.schema import StudentConfig
from distil.system.files import read_json
from distil.types import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from distil.models.sources import Source

ROWS = 4
"""Of each tensor that are looked at."""
NEAR = 2**-6
"""Relative: a copy of a number in half precision is nearer than this."""
WEIGHTS = "model.safetensors"

_BLOCK = re.compile(r"(?:^|\.)(\d+)\.")
"""The number of the block in the name of a tensor."""


def changed(model: PreTrainedModel, name: str) -> str:
    """What parts ``model`` from what the runner loads by ``name``, as far as its layers and some rows of each
    tensor tell. Empty where nothing does, or no safetensors of that name are on this machine."""
    from distil.engine.anatomy import innermost

    commit = getattr(innermost(model).config, "_commit_hash", None)  # not every transformers tells it
    now = _against(model, name)
    then = _against(model, name, commit) if commit and now != "" else None
    if commit and then == "":
        return f"at revision {commit[:12]}, which the name does not say"
    if not now and not then:
        return ""
    if then or Path(name).expanduser().is_dir() or name.startswith("distil:"):
        return f"and was changed in memory ({then or now})"
    return f"and is of another revision than the one on this machine, or was changed in memory ({now})"


def _against(model: PreTrainedModel, name: str, revision: str | None = None) -> str | None:
    """How ``model`` differs from the files of ``name``; None where they are not here, or cannot be read."""
    from safetensors import SafetensorError

    from distil.models.sources import student_source

    try:
        files = _files(student_source(alone(StudentConfig(path=name, revision=revision))))
        return _difference(model, files) if files else None
    # RuntimeError: of weights that lie on no device
    except (
        InputError,
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ):
        return None


def _files(source: Source) -> list[Path]:
    """Those that hold the weights; none where one is not here."""
    index = source.file(f"{WEIGHTS}.index.json")
    names = {WEIGHTS} if index is None else set(read_json(index)["weight_map"].values())
    found = [source.file(str(name)) for name in sorted(names)]
    return [file for file in found if file is not None] if None not in found else []


def _difference(model: PreTrainedModel, files: Iterable[Path]) -> str:
    from safetensors import safe_open

    from distil.engine.anatomy import innermost

    inner = innermost(model)
    prefix = f"{inner.base_model_prefix}."
    unread = inner._keys_to_ignore_on_load_unexpected or ()  # layers for a head that no model here has
    known = {
        name.replace(".base_layer", "").removeprefix(prefix): p.detach()
        for name, p in inner.named_parameters()
        if p.is_floating_point() and p.ndim  # what is held in few bits cannot be looked at
    }
    own = {name: p for name, p in known.items() if not p.is_meta}  # nor what is offloaded
    with ExitStack() as opened:
        stored: dict[str, Any] = {}
        for path in files:
            file = opened.enter_context(safe_open(path, framework="pt"))
            names = [name for name in file.keys() if not any(re.search(each, name) for each in unread)]  # noqa: SIM118
            stored |= {name.removeprefix(prefix): file.get_slice(name) for name in names}
        here, there = _blocks(known), _blocks(stored)
        if len(here) != len(there):
            return f"layers here: {len(here)}, there: {len(there)}"
        both = [name for name in own if name in stored]
        others = [name for name in both if not _same(own[name], stored[name])]
    if not others:
        return ""
    return f"{len(others)} of its {len(both)} tensors are others, {others[0]} among them"


def _blocks(names: Iterable[str]) -> set[str]:
    return {match[1] for name in names if (match := _BLOCK.search(name))}


def _same(tensor: Tensor, stored: Any) -> bool:
    """Whether some rows of both are alike, but for the precision that they are held in."""
    if list(tensor.shape) != stored.get_shape():
        return False
    return all(_alike(ours, theirs) for ours, theirs in _rows(tensor, stored))


def _rows(tensor: Tensor, stored: Any) -> Iterator[tuple[Tensor, Tensor]]:
    for i in range(0, len(tensor), max(1, len(tensor) // ROWS)):
        yield tensor[i : i + 1].cpu().float(), stored[i : i + 1].float()


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    return bool(ours.isclose(theirs, rtol=NEAR, atol=1e-6, equal_nan=True).all())
