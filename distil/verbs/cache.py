"""``distil cache info|verify|clear``: the teacher's answers on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from distil.registry import unknown_name
from distil.system.files import remove
from distil.system.locks import alone
from distil.system.units import human_bytes
from distil.teacher_cache.manifest import MANIFEST, NAMED, Manifest, bytes_in, caches, damage
from distil.types import InputError
from distil.verbs.arguments import Parser

Caches: TypeAlias = Mapping[Path, Manifest | None]
DEFAULT = Path("outputs/.teacher_cache")


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; 1 where ``verify`` finds damage."""
    given = _parser().read(arguments)
    if given is None:
        return 0
    _refuse_folders(given.folder, given.names)
    if given.folder == DEFAULT and not given.folder.exists():
        told = (
            f"There is no cache here yet: runs with teacher_cache= keep theirs in {DEFAULT}, those with an "
            f"output_dir= of their own in OUTPUT_DIR/{DEFAULT.name} (--folder)."
        )
        if given.names:
            raise InputError(told)
        print(told)
        return 0
    if not given.folder.is_dir():
        wrong = "is a file, not a folder" if given.folder.exists() else "no such folder"
        raise InputError(
            f"--folder {given.folder}: {wrong}. Runs keep their caches in OUTPUT_DIR/{DEFAULT.name}, "
            "or where teacher_cache.folder says."
        )
    try:
        return _do(given.what, given.folder, given.names)
    except OSError as error:
        where = error.filename or given.folder
        raise InputError(f"distil cache {given.what}: {where}: {error.strerror or error}.") from error


def _refuse_folders(root: Path, names: Sequence[str]) -> None:
    """Refuse a folder where the name of a cache is expected."""
    for name in filter(None, names):
        ours = (
            (root / name).is_dir()
            if Path(name).name == name
            else Path(name).resolve().parent == root.resolve()
        )
        if Path(name).is_dir() and not ours:
            raise InputError(
                f"{name} is a folder: where the caches lie is given as --folder {name}, those meant by their "
                "names, as info lists them."
            )


def _do(what: str, root: Path, wanted: Sequence[str]) -> int:
    found = caches(root)
    names = {folder.name for folder in found}
    wanted = [Path(name).name if Path(name).resolve().parent == root.resolve() else name for name in wanted]
    for name in wanted:
        if name not in names:
            raise InputError(unknown_name("cache", name, names))
    chosen = {folder: it for folder, it in found.items() if not wanted or folder.name in wanted}
    if what == "clear" and not wanted:
        _remove_locks(root)
    if not chosen:
        print(f"{root} holds no caches.")
        return 0
    return {"info": _info, "verify": _verify, "clear": _clear}[what](chosen)


def _parser() -> Parser:
    parser = Parser(
        "cache",
        "The teacher's answers that runs with teacher_cache= keep for each other.\n"
        "  info    what is there, of which teacher, how large\n"
        "  verify  hash every file again; ends with 1 where one has changed, and names it\n"
        "  clear   remove them; those that a run is building now are left",
    )
    parser.add_argument("what", metavar="info|verify|clear", choices=("info", "verify", "clear"))
    parser.add_argument(
        "names", metavar="NAME", nargs="*", default=[], help="these alone, as info lists them"
    )
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, default=DEFAULT, help=f"where they lie; {DEFAULT} if not given"
    )
    return parser


def _state(folder: Path, manifest: Manifest | None) -> str | None:
    """What a cache is, where it is not complete."""
    if manifest is None:
        return "damaged" if (folder / MANIFEST).exists() else "unfinished"
    return None if manifest.complete else "unfinished"


def _info(found: Caches) -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("cache", "teacher", "split"):
        table.add_column(column, overflow="fold")
    for column in ("rows", "tokens", "size"):
        table.add_column(column, justify="right")
    for folder, manifest in found.items():
        about = {} if manifest is None else manifest.about
        written = datetime.fromtimestamp(folder.stat().st_mtime).isoformat(" ", "minutes")
        rows = about.get("rows")
        table.add_row(
            f"{folder.name}\n{_state(folder, manifest) or written}",
            f"{about.get('teacher') or ''}\n{_kept_how(about)}",
            str(about.get("split") or ""),
            "" if rows is None else f"{rows:,}",
            "" if manifest is None or rows is None else f"{manifest.tokens:,}",
            human_bytes(bytes_in(folder)),
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"{human_bytes(sum(map(bytes_in, found)))} in all")
    return 0


def _kept_how(about: Mapping[str, Any]) -> str:
    """What tells caches of one teacher and split apart: the format's keys and the precision."""
    key = about.get("key") or {}
    told = {name: value for name, value in (key.get("format") or {}).items() if name != "name"}
    teacher = key.get("teacher") or {}
    named = {
        "dtype": "model.teacher.dtype",
        "quantization": "model.teacher.quantization",
        "autocast": "mixed",
    }
    told |= {
        told_as: teacher[name] for name, told_as in named.items() if teacher.get(name) not in (None, "none")
    }
    return " ".join(f"{name}={str(value).replace(' ', '')}" for name, value in told.items())


def _verify(found: Caches) -> int:
    problems = 0
    for folder, manifest in found.items():
        state = _state(folder, manifest)
        wrong = [f"{folder / MANIFEST} cannot be read"] if state == "damaged" else []
        shards = () if manifest is None else manifest.shards
        wrong += [told for shard in shards if (told := damage(folder, shard)) is not None]
        problems += len(wrong)
        so_far = "unfinished, so far " if state == "unfinished" else ""
        print(f"{folder.name}: {so_far}{f'{len(wrong)} damaged' if wrong else 'whole'}")
        for told in wrong:
            print(f"  {told}")
    if problems:
        print("The next run that reads it builds what is damaged again.")
    return 1 if problems else 0


def _clear(found: Caches) -> int:
    freed = 0
    for folder in found:
        with suppress(InputError), alone(folder, None):
            size = bytes_in(folder)
            (folder / MANIFEST).unlink(missing_ok=True)  # first: half a cache must not look like one
            remove(folder)
            freed += size
            continue
        print(f"{folder.name} is in use: left.")
    print(f"{human_bytes(freed)} freed.")
    return 0


def _remove_locks(root: Path) -> None:
    """Remove the locks that killed builds left, unless a run has them."""
    for path in sorted(root.glob(".*.lock")):
        name = path.name.removeprefix(".").removesuffix(".lock")
        if NAMED.fullmatch(name):
            with suppress(InputError), alone(root / name, None):
                pass
