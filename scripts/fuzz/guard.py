"""What an input may not do: take long, raise what is no word for the user, write outside, run code."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import distil
from distil.types import DistilError

SECONDS = 10
"""Of the processor, that one input may take."""
WAITING = 120
"""Seconds that it may take in all, on a machine that others use, too."""
MEMORY = 3 * 2**30
"""Bytes of address space that inputs may take beside what was there before the first."""
PACKAGE = str(Path(distil.__file__).parent)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, 0),),
    "os.chmod": ((0, 2),),
    "shutil.rmtree": ((0, 1),),
}
"""Audit events that change files: which arguments are paths, and which the open folders they start from."""
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "socket.getaddrinfo",
    "pickle.find_class",
    "ctypes.dlopen",
)


class Broken(BaseException):
    """An input did what it may not; no ``except Exception`` stops it."""


@dataclass(frozen=True)
class Finding:
    """What an input came to that it should not have."""

    what: str
    place: str
    """The innermost line of ours that was at it."""
    trace: str


class Guard:
    """Runs one input after the other. There is one in a process: audit hooks stay."""

    def __init__(self, *, coverage: bool) -> None:
        self.coverage = coverage
        self.lines: set[tuple[CodeType, int]] = set()
        """Of the package, that any input has reached."""
        self._scratch: str | None = None
        self._fresh = 0
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, _too_long)
        signal.signal(signal.SIGPROF, _too_long)

    def run(self, target: Callable[[Path], None], folder: Path) -> tuple[Finding | None, int]:
        """What is wrong with ``target(folder)``, and how many lines it reached that none had reached."""
        self._fresh = 0
        self._scratch = str(folder.resolve())
        finding = None
        signal.setitimer(signal.ITIMER_REAL, WAITING)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            sys.settrace(self._call if self.coverage else None)
            target(folder)
        except DistilError as error:
            if not str(error).strip():
                finding = _finding(error)
        except (Exception, SystemExit, Broken) as error:
            finding = _finding(error)
        finally:
            sys.settrace(None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._scratch = None
        return finding, self._fresh

    def _call(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        key = (frame.f_code, frame.f_lineno)
        if key not in self.lines:
            self.lines.add(key)
            self._fresh += 1
        return self._line

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._scratch is None:
            return
        if event in FORBIDDEN:
            raise Broken(f"{event}{arguments!r:.200}")
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and (flags or 0) & WRITES:
                self._inside(event, path)
        elif event in CHANGES:
            for at, start in CHANGES[event]:
                self._inside(event, arguments[at], arguments[start])

    def _inside(self, event: str, path: Any, start: Any = None) -> None:
        if isinstance(path, int):
            return
        assert self._scratch is not None
        text = os.fsdecode(path)
        if isinstance(start, int) and start >= 0:
            text = os.path.join(os.readlink(f"/proc/self/fd/{start}"), text)
        # Of a link that is removed or renamed, the place of the link counts.
        place = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(text))), os.path.basename(text))
        real = os.path.realpath(text) if event == "open" else place
        if real != "/dev/null" and not f"{real}/".startswith(f"{self._scratch}/"):
            raise Broken(f"{event} outside: {text!r:.200}")


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise Broken(f"it takes more than {SECONDS} s of the processor, or {WAITING} s")


def _finding(error: BaseException) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    place = f"{Path(ours[-1].filename).relative_to(PACKAGE)}:{ours[-1].lineno}" if ours else "outside"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return Finding(text[:300], place, "".join(traceback.format_exception(error)))


@contextmanager
def bounded() -> Iterator[None]:
    """Memory is refused beyond ``MEMORY``: what asks for more ends with MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
