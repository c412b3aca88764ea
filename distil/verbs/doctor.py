"""``distil doctor``: what this machine can run, on one screen; and whether a run directory is whole."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from distil.commands import rerun_command
from distil.system import hub, machine
from distil.system.extras import install
from distil.system.printable import printable
from distil.types import InputError
from distil.verbs.arguments import Parser

TRAINED, HELD = 16, 4
"""Bytes a parameter: weight, gradient and AdamW's two moments in float32; a teacher's weight."""
EXTRAS = (
    "peft", "wandb", "tensorboard", "gguf", "hydra-joblib-launcher", "hydra-submitit-launcher",
    "ray", "optuna", "deepspeed",
)  # fmt: skip
TINY = "tiny models are fastest with run.threads=1"
"""Where a run may take several threads of a CPU."""
OUTPUTS = Path("outputs")
EDITED = 8
"""Files that were edited or added which are named."""


def main(arguments: Sequence[str]) -> int:
    """Describe the machine, or verify a run: 1 where something of it is damaged."""
    given = _parser().read(arguments)
    if given is None:
        return 0
    if given.run is not None:
        if given.run.is_file():
            raise InputError(
                f"distil doctor {given.run}: that is a file. It takes a run directory, or nothing: what this "
                "machine can run. Rows are looked at before anything loads by the run that is to learn from "
                "them: distil run data.train_file=FILE."
            )
        return _run(given.run)
    _print(_machine(given.network))
    return 0


def _parser() -> Parser:
    parser = Parser(
        "doctor",
        "What this machine can run: torch, GPU, quantisation, bf16, CPUs, memory, disk,\n"
        "keys (present or not, never shown), packages. With RUN_DIR: whether that run is\n"
        "whole. Every file is read, every checkpoint and the student hashed again; ends\n"
        "with 1 where something is damaged, and names it. An edited card, and files put\n"
        "beside the student, are named too.",
    )
    parser.add_argument("run", metavar="RUN_DIR", nargs="?", type=Path, help="verify this run directory")
    parser.add_argument(
        "--network", action="store_true", help="ask whether the hub and W&B answer; else nothing is asked"
    )
    return parser


def _print(rows: Iterator[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for what, text in rows:
        table.add_row(what, Text(printable(text)))
    Console(highlight=False).print(table)


# ---- the machine


def _machine(network: bool) -> Iterator[tuple[str, str]]:
    yield "distil-runner", f"{machine.installed('distil-runner') or 'from a folder'}, Python {_python()}"
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    build = machine.torch_build()
    yield (
        "torch",
        "not installed: pip install distil-runner" if build is None else f"{build[0]}, for {build[1]}",
    )
    yield "transformers", machine.installed("transformers") or "not installed: pip install distil-runner"
    seen = machine.gpus(build[1]) if build is not None else []
    yield "GPU", "\n".join(seen) or _no_gpu(build)
    yield "bf16", _bf16(seen)
    yield "4 and 8 bits", _bits(build, seen)
    count, allowed = machine.cpus()
    threads = os.environ.get("OMP_NUM_THREADS")
    limited = "" if allowed == count else f", of which {allowed:g} for this process"
    yield "CPUs", f"{count}{limited}{f'; OMP_NUM_THREADS={threads}' if threads else ''}"
    if not seen and allowed > 1 and threads != "1":
        yield "", TINY
    total, free = machine.memory()
    yield "memory", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} free"
    if not seen:
        yield "", _room(free)
    yield "disk", f"{machine.free_disk(OUTPUTS) / 1e9:.1f} GB free for {OUTPUTS}/"
    yield "network", "; ".join(_asked()) if network else "not looked at (--network asks the hub and W&B)"
    key = machine.wandb_key()
    yield "W&B key", f"{key}: tracker=wandb records online" if key else "none: tracker=wandb records offline"
    yield "hub token", "there" if hub.token() else "none: gated and private models are closed"
    yield "optional", ", ".join(_optional(there=True)) or "none"
    if absent := list(_optional(there=False)):
        yield "not installed", ", ".join(absent)


def _python() -> str:
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    return platform.python_version() + ("" if fits else " (3.11 to 3.13 are supported)")


def _no_gpu(build: tuple[str, str] | None) -> str:
    if build is not None and build[1] == "CPU" and any(map(os.path.exists, machine.GPU_NODES)):
        return "there is one, but this torch is built for CPUs: see pytorch.org for the other"
    return "none: models run on the CPU"


def _bf16(seen: Sequence[str]) -> str:
    if seen:
        return "as above"
    native = machine.cpu_bf16()
    words = {True: "native on this CPU", False: "emulated on this CPU: slower than float32, half the memory"}
    return words.get(native, "not known on this system") if native is not None else "not known on this system"


def _bits(build: tuple[str, str] | None, seen: Sequence[str]) -> str:
    """Whether bitsandbytes has code for what torch runs on here."""
    found, libraries = machine.installed("bitsandbytes"), machine.bitsandbytes_libraries()
    if found is None:
        return f"bitsandbytes is not installed: {install('adapters')}"
    kind = "cpu"
    if seen and build is not None and build[1].startswith("CUDA"):
        kind = "cuda" + build[1].removeprefix("CUDA ").replace(".", "")
    has = kind in libraries
    return f"bitsandbytes {found}, {'with' if has else 'without'} code for {kind}"


def _room(free: int) -> str:
    """What the free memory holds before activations: an order of magnitude."""
    return (
        f"a student of {free / TRAINED / 1e9:.2g} B parameters trained whole ({TRAINED} bytes each), or of "
        f"{free / (TRAINED + 4 * HELD) / 1e9:.2g} B beside a teacher four times its size; less activations"
    )


def _asked() -> Iterator[str]:
    from distil.tracking.network import reachable

    for name, address in (("hub", hub.endpoint()), ("W&B", machine.wandb_server())):
        yield f"{name} {'answers' if reachable(address) else 'does not answer'}"


def _optional(*, there: bool) -> Iterator[str]:
    for name in EXTRAS:
        found = machine.installed(name)
        if there and found is not None:
            yield f"{name} {found}"
        elif not there and found is None:
            yield name


# ---- a run


def _run(folder: Path) -> int:
    from distil.run_check import check_run, outlook

    found = check_run(folder)
    record = found.record
    reason = f": {record.reason}" if record.reason else ""
    print(printable(f"{record.path.resolve().name}  {record.status}{reason}"))
    for note in found.notes:
        print(printable(f"  {note}"))
    for line in found.damaged:
        print(printable(f"  DAMAGED {line}"))
    for line in found.edited[:EDITED]:
        print(printable(f"  {line} since the run was done"))
    if (more := len(found.edited) - EDITED) > 0:
        print(f"  and {more} more")
    for line in outlook(found):
        print(printable(f"  {line}"))
    if not found.damaged:
        print(f"whole: nothing {'else ' if found.edited else ''}is missing or changed")
        return 0
    print(_way_out(found.damaged, record.status == "done", record.command))
    return 1


def _way_out(damaged: Sequence[str], done: bool, command: str) -> str:
    if all(line.startswith("checkpoints/") for line in damaged):
        if done:
            return "The run is done: its student and its results do not need these checkpoints."
        return "The same command sets damaged checkpoints aside and goes on from the newest that verifies."
    again = printable(rerun_command(command))
    return (
        f"Copy what is damaged again from its source, or make the run once more, in a new folder:\n  {again}"
    )
