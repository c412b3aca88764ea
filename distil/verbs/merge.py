"""``distil merge RUN --output DIR``: base and adapter as one plain model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distil.system.files import check_output
from distil.system.offline import network
from distil.system.units import human_bytes
from distil.types import InputError
from distil.verbs.arguments import Parser, begin, warn

if TYPE_CHECKING:
    from distil.products.finished_run import FinishedRun
    from distil.products.merging import Written


def main(arguments: Sequence[str]) -> int:
    """Merge, and say what was written and how exact it is."""
    parser = Parser(
        "merge",
        "Write base and adapter of a finished run, or of a folder that save_student of the\n"
        "library wrote, as one plain model, which loads with\n"
        "AutoModelForCausalLM.from_pretrained(DIR) and needs neither PEFT nor bitsandbytes.\n"
        "Of a base in 4 or 8 bits the weights are unpacked first. What is written is loaded\n"
        "again and compared with the unmerged student before it takes its name.",
    )
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="the folder of a finished run, or of save_student"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="an absent or empty folder")
    parser.add_argument(
        "--base-only",
        action="store_true",
        help="the base alone, pruned and unpacked as it was trained on",
    )
    parser.may_trust()
    given = parser.read(arguments)
    if given is None:
        return 0
    from distil.products.library import open_product

    run = open_product(given.run, trust=given.trust_remote_code)
    _check(run, given.base_only)
    check_output(given.output)
    warn(run.folder, run.record.damaged)
    begin("Merging", run.folder)
    from distil.products.merging import merge

    command = f"distil merge {shlex.join(arguments)}"
    with network(run.config.run.allow_network):
        merged = merge(run, given.output, command, base_only=given.base_only)
    print(_told(merged))
    return 0


def _check(run: FinishedRun, base_only: bool) -> None:
    """Raise InputError for what has no weights to merge."""
    name = run.config.peft.name
    if not run.adapter.adapts:
        raise InputError(
            f"{run.folder}: peft={name}, so {run.student} is a plain model already and there is nothing to "
            "merge. Copy that folder."
        )
    if run.adapter.no_merge is not None and not base_only:
        raise InputError(
            f"{run.adapter.no_merge}. `distil merge {run.folder} --output DIR --base-only` writes that base."
        )


def _told(written: Written) -> str:
    lines = [
        f"{written.folder}/  {human_bytes(written.bytes)}, {written.dtype}: "
        "AutoModelForCausalLM.from_pretrained loads it.",
        f"Its logits lie at most {written.difference:.1e} from those before (the largest is "
        f"{written.largest:.1f}).",
    ]
    if written.bits is not None:
        lines.append(f"The base was held in {written.bits} bits: its weights were unpacked first.")
    if written.rounding:
        lines.append(
            f"{written.rounding:.1e} of that is no change of the weights: held in {written.bits} bits, "
            f"{'activations were rounded to 8 bits' if written.bits == 8 else 'products were rounded'} at "
            "run time too, and here they are not."
        )
    return "\n".join(lines)
