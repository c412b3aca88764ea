"""A finished run's student as a folder that a hub, or anybody, takes: model, tokenizer, card, config."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distil.adapters.existing import ADAPTER_CONFIG, SIDECAR
from distil.cards.exported import CardOptions, model_card
from distil.cards.subject import Subject
from distil.cards.usage import BASE, usage_of
from distil.products.finished_run import FinishedRun, check_export
from distil.products.loading import load_base, put_on
from distil.products.merging import HALF_TOLERANCE, merge, probe_ids
from distil.system.files import all_or_nothing, read_json, write_json, write_text
from distil.system.printable import one_line
from distil.system.quiet import no_hints, quiet_transformers
from distil.system.sharing import check_shareable, clean_settings, places_of, scrubbed, shareable
from distil.types import RunFailed

TOLERANCE = 1e-3
"""Largest difference of the logits, as a share of the largest, with the base that travels along."""
AS_IT_IS: dict[str, Any] = {
    "revision": None,
    "gguf_file": None,
    "init": "pretrained",
    "keep_layers": None,
    "overrides": {},
}
"""Of a base that travels along: nothing is left to be cut or drawn."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    kind: str
    """``model``, ``adapter`` or ``merged``."""
    bytes: int
    """Of all weights."""
    base: bool
    """Whether the model under the adapter is among them."""
    license: str | None
    """What the card says; None: the source model says none that could be found."""


def export(run: FinishedRun, output: Path, options: CardOptions, *, merged: bool = False) -> Exported:
    """Write the student of ``run`` to ``output``, whole or not at all.

    Args:
        run: the finished run.
        output: an absent or empty folder.
        options: of the card.
        merged: base and adapter as one plain model.

    Raises InputError as ``check_export`` does, and where the base of an adapter is gone; RunFailed where what
    was written does not say what the student says, or tells what is private.
    """
    check_export(run, output, merged=merged)
    subject = Subject.of(run, "merged" if merged else "adapter" if run.adapter.adapts else "model")
    with all_or_nothing(output) as partial:
        travels = _write_model(subject, partial)
        architecture = _architecture(partial) if travels else None
        usage = usage_of(subject, architecture, options.title or output.absolute().name, options.samples)
        _write_words(subject, partial, usage, options)
        size = sum(file.stat().st_size for file in partial.rglob("*.safetensors"))
    return Exported(output, subject.kind, size, travels, options.license or subject.start.license)


def _write_model(subject: Subject, folder: Path) -> bool:
    """Weights and tokenizer. Returns whether the base of an adapter is among them."""
    run = subject.run
    if subject.kind == "merged":
        merge(run, folder, "")
        return False
    unwanted = shutil.ignore_patterns("README.md", ".*")
    shutil.copytree(run.student, folder, ignore=unwanted, dirs_exist_ok=True)
    if subject.kind == "model":
        return False
    travels = not _others_have(subject)
    _name_base(folder, BASE if travels else str(subject.start.hub))
    if travels:
        merge(run, folder / BASE, "", base_only=True)
        (folder / BASE / "README.md").unlink()
        _prove(run, folder)
    return travels


def _write_words(subject: Subject, folder: Path, usage: str, options: CardOptions) -> None:
    """Card and config, and nothing in the whole folder that is private."""
    config = dict(subject.record.config)
    places = places_of(config, subject.run.folder)
    clean_settings(folder)
    settings = yaml.safe_dump(shareable(config), sort_keys=False, allow_unicode=True, width=2**31)
    write_text(folder / "config.yaml", scrubbed(settings, places))
    write_text(folder / "README.md", scrubbed(model_card(subject, usage, options), places))
    check_shareable(folder, places)


def _others_have(subject: Subject) -> bool:
    """Whether the model under the adapter is one of the hub as it is."""
    student = subject.config.model.student
    changed = subject.kept_layers is not None or student.init == "random" or student.overrides
    return not changed and not student.gguf_file and subject.start.hub is not None


def _name_base(folder: Path, name: str) -> None:
    """Say in the adapter's files where its base is: a name that means the same to everybody."""
    config = read_json(folder / ADAPTER_CONFIG)
    write_json(folder / ADAPTER_CONFIG, config | {"base_model_name_or_path": name})
    told = read_json(folder / SIDECAR)
    if name == BASE:
        told |= {"model": told["model"] | AS_IT_IS, "kept_layers": None}
    told["model"]["path"] = name
    write_json(folder / SIDECAR, shareable(told))


def _architecture(folder: Path) -> str:
    """The class of transformers that loads the base beside the adapter.

    ``AutoModelForCausalLM`` would see the adapter first, and look for its base on a hub.
    """
    return str(read_json(folder / BASE / "config.json")["architectures"][0])


def _prove(run: FinishedRun, folder: Path) -> None:
    """Raise RunFailed where the adapter on the base that travels along is not the student of the run."""
    way = "" if run.adapter.no_merge is not None else " Export it merged: --merge."
    try:
        apart, largest, exact = _compared(run, folder)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise RunFailed(
            f"The adapter and its base cannot be loaded with PEFT alone ({type(error).__name__}: "
            f"{one_line(error)}): nothing was written.{way}"
        ) from error
    if not apart <= (TOLERANCE if exact else HALF_TOLERANCE) * max(largest, 1.0):
        raise RunFailed(
            f"The adapter, loaded as anybody would on the base beside it, says something else than the "
            f"student of the run (logits {apart:.2g} apart, the largest is {largest:.2g}): "
            f"nothing was written.{way}"
        )


def _compared(run: FinishedRun, folder: Path) -> tuple[float, float, bool]:
    """How far the logits of ``folder`` lie from the student's, the largest of those, and whether rounding is
    no excuse."""
    import torch
    import transformers
    from peft import PeftModel

    with quiet_transformers(), no_hints(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind: Any = getattr(transformers, _architecture(folder))
        base = kind.from_pretrained(folder, subfolder=BASE, local_files_only=True)
        loaded: Any = PeftModel.from_pretrained(base, str(folder)).eval()
        student: Any = put_on(load_base(run), run)
        ids_BT = probe_ids(student)
        said, meant = (
            model(input_ids=ids_BT.to(next(model.parameters()).device)).logits.float().cpu()
            for model in (loaded, student)
        )
    exact = run.quantization is None and loaded.dtype in (torch.float32, torch.float64)
    return float((said - meant).abs().max()), float(meant.abs().max()), exact
