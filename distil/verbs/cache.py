"""``distil cache info|verify|clear``: the teacher's answers on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from distil.locks import alone
from distil.registry import unknown_name
from distil.types import InputError
from distil.verbs.arguments import Parser

if TYPE_CHECKING:
    from distil.teacher_cache.manifest import Manifest

DEFAULT = Path("outputs/.teacher_cache")


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; 1 where ``verify`` finds damage."""
    given = _parser().read(arguments)
    if given is None:
        return 0
    from distil.teacher_cache.manifest import caches

    if not given.folder.is_dir():
        raise InputError(
            f"--folder {given.folder}: no such folder. Runs keep their caches in OUTPUT_DIR/{DEFAULT.name}, "
            "or where teacher_cache.folder says."
        )
    found = caches(given.folder)
    names = {folder.name for folder in found}
    for name in given.names:
        if name not in names:
            raise InputError(unknown_name("cache", name, names))
    chosen = {folder: it for folder, it in found.items() if not given.names or folder.name in given.names}
    if not chosen:
        print(f"{given.folder} holds no caches.")
        return 0
    return {"info": _info, "verify": _verify, "clear": _clear}[given.what](chosen)


def _parser() -> Parser:
    parser = Parser(
        "cache",
        "The teacher's answers that runs with teacher_cache= keep for each other.\n"
        "  info    what is there, of which teacher, how large\n"
        "  verify  hash every file again; ends with 1 where one has changed, and names it\n"
        "  clear   remove them; those that a run is building now are left",
    )
    parser.add_argument("what", metavar="info|verify|clear", choices=("info", "verify", "clear"))
    parser.add_argument("names", metavar="NAME", nargs="*", help="these alone, as info lists them")
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, default=DEFAULT, help=f"where they lie; {DEFAULT} if not given"
    )
    return parser


def _info(found: Mapping[Path, Manifest]) -> int:
    from rich.console import Console
    from rich.table import Table

    from distil.teacher_cache.manifest import human_bytes

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("cache", "teacher", "split"):
        table.add_column(column, overflow="fold")
    for column in ("rows", "tokens", "size"):
        table.add_column(column, justify="right")
    for folder, manifest in found.items():
        about = manifest.about
        unfinished = "" if manifest.complete else " (unfinished)"
        rows = about.get("rows")
        table.add_row(
            folder.name + unfinished,
            str(about.get("teacher") or ""),
            str(about.get("split") or ""),
            "" if rows is None else f"{rows:,}",
            f"{manifest.tokens:,}" if rows is not None else "",
            human_bytes(manifest.size),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{human_bytes(sum(manifest.size for manifest in found.values()))} in all")
    return 0


def _verify(found: Mapping[Path, Manifest]) -> int:
    from distil.teacher_cache.manifest import damage

    problems = 0
    for folder, manifest in found.items():
        wrong = [told for shard in manifest.shards if (told := damage(folder, shard)) is not None]
        problems += len(wrong)
        state = "unfinished, so far " if not manifest.complete else ""
        print(f"{folder.name}: {state}{f'{len(wrong)} damaged' if wrong else 'whole'}")
        for told in wrong:
            print(f"  {told}")
    if problems:
        print("The next run that reads it builds what is damaged again.")
    return 1 if problems else 0


def _clear(found: Mapping[Path, Manifest]) -> int:
    from distil.teacher_cache.manifest import MANIFEST, human_bytes

    freed = 0
    for folder, manifest in found.items():
        with suppress(InputError), alone(folder, None):
            (folder / MANIFEST).unlink(missing_ok=True)  # first: half a cache must not look like one
            shutil.rmtree(folder)
            freed += manifest.size
            continue
        print(f"{folder.name} is in use: left.")
    print(f"{human_bytes(freed)} freed.")
    return 0
