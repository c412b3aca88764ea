"""``distil export RUN``: the student as a folder ready for a hub, and onto a hub where asked."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distil.system.units import human_bytes
from distil.types import InputError
from distil.verbs.arguments import Parser, begin, warn, whole

if TYPE_CHECKING:
    from distil.products.exporting import Exported
    from distil.products.finished_run import FinishedRun

FOLDER = "export"
"""Where it goes if nobody says: inside the run directory."""


def main(arguments: Sequence[str]) -> int:
    """Export, say what was written, and push where that was asked for."""
    given = _parser().read(arguments)
    if given is None:
        return 0
    if given.public and given.push is None:
        raise InputError("--public says how --push NAME is done: give both.")
    from distil.products.finished_run import check_export

    run = _open(given.run, given.trust_remote_code)
    output: Path = given.output or run.folder / FOLDER
    if given.push is not None and given.output is None and (output / "README.md").is_file():
        private = "" if given.public else " --private"
        raise InputError(
            f"{output} is there already. To upload it as it is: hf upload {given.push} "
            f"{shlex.quote(str(output))}{private}. To export once more, give a folder that is absent or "
            "empty: --output DIR."
        )
    check_export(run, output, merged=given.merge)
    warn(run.folder, run.record.damaged)
    begin("Exporting", run.folder)
    from distil.cards.exported import CardOptions
    from distil.products.exporting import export

    target = None
    if given.push is not None:
        from distil.products.publishing import find_target

        target = find_target(given.push, public=given.public)
    options = CardOptions(target.name if target else None, given.license, given.samples)
    exported = export(run, output, options, merged=given.merge)
    print(_told(exported))
    if target is not None:
        from distil.products.publishing import push

        url = push(output, target)
        print(f"{url}  ({'public' if target.public else 'private'})")
    return 0


def _open(folder: Path, trust: bool) -> FinishedRun:
    """The finished run in ``folder``.

    Raises InputError for what the library saved, which has no scores, and where those are not the run's own.
    """
    from distil.products.library import SavedStudent, open_product

    run = open_product(folder, trust=trust)
    if isinstance(run, SavedStudent):
        raise InputError(
            f"{folder} was saved by save_student of the library: no run measured it, so a card has no scores "
            "to show. To share it as it is, take what is private out of its README.md and JSON files, then: "
            f"hf upload OWNER/NAME {folder}"
        )
    if told := [line for line in run.record.damaged if not line.startswith("student/")]:
        raise InputError(f"{folder}: {'; '.join(told)}, and its card would tell. {run.way_out}")
    return run


def _parser() -> Parser:
    parser = Parser(
        "export",
        "Write the student of a finished run as a folder ready for a hub: model or adapter,\n"
        "tokenizer, model card (README.md) with scores and how it was made, config.yaml. It\n"
        "loads with transformers and PEFT alone. Where the model under an adapter is not one\n"
        "of the hub (pruned, random, a folder of yours) it travels along in base/. Secrets and\n"
        "the places of your files are left out.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help=f"an absent or empty folder; RUN/{FOLDER} if not given"
    )
    parser.add_argument("--merge", action="store_true", help="adapter and base as one plain model")
    parser.add_argument(
        "--license",
        metavar="ID",
        type=_license,
        help="of the card, as in apache-2.0; that of the source model if not given",
    )
    parser.add_argument(
        "--samples", metavar="N", type=whole(0), default=3,
        help="answers of the run shown in the card, with their prompts (3); 0 where the rows are private",
    )  # fmt: skip
    parser.add_argument(
        "--push",
        metavar="NAME",
        help="upload the folder to OWNER/NAME of the hub; needs a token (hf auth login)",
    )
    parser.add_argument("--public", action="store_true", help="for everybody to see; without it private")
    parser.may_trust()
    return parser


def _license(text: str) -> str:
    """Argparse type: a name as a hub has it, which knows no spaces and no capitals."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", text):
        raise argparse.ArgumentTypeError(
            f"hubs name licenses as in apache-2.0, mit or cc-by-4.0, and others other; got {text!r}"
        )
    return text


def _told(exported: Exported) -> str:

    what = {
        "model": "a plain model",
        "adapter": "an adapter and the model under it (base/)" if exported.base else "an adapter",
        "merged": "adapter and base, merged into a plain model",
    }[exported.kind]
    lines = [
        f"{exported.folder}/  {what}, {human_bytes(exported.bytes)} of weights.",
        f"{exported.folder / 'README.md'}  is the model card: read it before others do.",
    ]
    if exported.license is None:
        lines.append(
            "The source model says no license that could be found: --license ID puts one on the card."
        )
    return "\n".join(lines)
