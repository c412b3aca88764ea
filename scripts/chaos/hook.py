"""Ends the process at the n-th file operation below a folder, or strikes from there on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "os.truncate": (0,)}
"""Audit events that change a folder, and which of their arguments are paths."""

Strike = Callable[[str], None]
"""Takes the path of the operation that it stands before."""


class Boundaries:
    """Counts the file operations of this process below ``root``, from ``install`` on.

    Python's own are seen by an audit hook; ``fsync``, ``torch.save`` and safetensors, which raise no audit
    event, by wrappers. A native writer counts before and after: at the second its file is there.

    Args:
        root: the folder watched.
        at: the operation before which the process is killed; None only counts.
        power: lose, at the kill, what was not synced: data back to their length at the last sync, renames
            undone whose folder was not synced since.
        names: takes a line for each operation.
        strike: called before the operation ``at`` and all that follow, in place of the kill; it may raise.
    """

    def __init__(
        self,
        root: Path,
        at: int | None,
        *,
        power: bool,
        names: Path | None = None,
        strike: Strike | None = None,
    ) -> None:
        self.root, self.at, self.power = str(root.resolve()), at, power
        self.count = 0
        self.strike = strike
        self.process = os.getpid()
        self.durable: dict[str, int] = {}
        """Bytes that survive, of files written to since their last sync."""
        self.renamed: list[tuple[str, str, bytes | None]] = []
        """From, to, and the file that was there before."""
        self.deaf = False
        self.names = None if names is None else os.open(names, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def install(self) -> None:
        """Begin to count, for the life of this process."""
        import torch
        from safetensors import torch as safetensors

        sync = os.fsync

        def fsync(descriptor: Any) -> None:
            path = os.path.realpath(f"/proc/self/fd/{descriptor}")
            self._before("fsync", path)
            sync(descriptor)
            self._synced(path)

        setattr(os, "fsync", fsync)  # noqa: B010  # its stub names the parameter otherwise
        torch.save = self._native(torch.save, "torch.save")
        write: Callable[..., Any] = safetensors.serialize_file  # type: ignore[attr-defined]  # what all go through
        safetensors.serialize_file = self._native(write, "safetensors")  # type: ignore[attr-defined]
        sys.addaudithook(self._audit)

    def _native(self, write: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(what: Any, path: Any, *rest: Any, **keywords: Any) -> Any:
            if not isinstance(path, (str, os.PathLike)):
                return write(what, path, *rest, **keywords)
            self._before(name, os.path.abspath(path))
            result = write(what, path, *rest, **keywords)
            self._written(os.path.abspath(path), kept=0)
            self._before(f"{name}, written", os.path.abspath(path))
            return result

        return wrapped

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.deaf or os.getpid() != self.process:
            return
        if event == "open":
            path, mode, flags = arguments
            asked = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            writes = any(c in mode for c in "wax+") if mode else flags & asked
            if isinstance(path, (str, os.PathLike)) and writes:
                whole = os.path.abspath(path)
                self._before("open", whole)
                appends = (mode and "a" in mode) or flags & os.O_APPEND
                self._written(whole, kept=_size(whole) if appends else 0)
        elif event in CHANGES:
            paths = [_whole(arguments[i], arguments[-1]) for i in CHANGES[event]]
            self._before(event.partition(".")[2], paths[-1])
            if event == "os.rename":
                self._moved(*paths)

    def _before(self, what: str, path: str) -> None:
        if not self._ours(path) or os.getpid() != self.process:
            return
        self.count += 1
        if self.names is not None:
            os.write(self.names, f"{self.count}\t{what}\t{path[len(self.root) + 1 :]}\n".encode())
        if self.strike is not None:
            if self.at is not None and self.count >= self.at:
                self._struck(path)
            return
        if self.count == self.at:
            if self.power:
                self._cut_power()
            os.kill(self.process, signal.SIGKILL)

    def _struck(self, path: str) -> None:
        self.deaf, strike = True, self.strike
        try:
            if strike is not None:
                strike(path)
        finally:
            self.deaf = False

    def _ours(self, path: str) -> bool:
        return path.startswith(self.root + os.sep)

    def _written(self, path: str, kept: int) -> None:
        if self._ours(path):
            self.durable[path] = min(kept, self.durable.get(path, kept))

    def _synced(self, path: str) -> None:
        self.durable.pop(path, None)
        self.renamed = [each for each in self.renamed if os.path.dirname(each[1]) != path]

    def _moved(self, source: str, target: str) -> None:
        if not self._ours(target) or not self.power:
            return
        before = None
        if os.path.isfile(target):
            self.deaf = True
            before = Path(target).read_bytes()
            self.deaf = False
        self.renamed.append((source, target, before))
        for path in [path for path in self.durable if path == source or path.startswith(source + os.sep)]:
            self.durable[target + path[len(source) :]] = self.durable.pop(path)

    def _cut_power(self) -> None:
        self.deaf = True
        for path, kept in self.durable.items():
            if os.path.isfile(path) and _size(path) > kept:
                os.truncate(path, kept)
        for source, target, before in reversed(self.renamed):
            if os.path.exists(target) and not os.path.exists(source):
                os.rename(target, source)
                if before is not None:
                    Path(target).write_bytes(before)


def _whole(path: Any, folder: Any) -> str:
    """An absolute path; ``shutil.rmtree`` names what it removes within an open folder."""
    if isinstance(path, int):
        return os.path.realpath(f"/proc/self/fd/{path}")
    inside = isinstance(folder, int) and folder >= 0
    start = os.path.realpath(f"/proc/self/fd/{folder}") if inside else os.getcwd()
    return os.path.normpath(os.path.join(start, os.fsdecode(path)))


def _size(path: str) -> int:
    return os.stat(path).st_size if os.path.exists(path) else 0
