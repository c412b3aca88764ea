"""Whether a run is done: its ``status.json``, true however the run ends, and the word for why it failed."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from distil.commands import resume_command
from distil.engine.checkpoints import published
from distil.run_files import BEFORE, CHECKPOINTS, METRICS, RESULTS, STATUS, status_of
from distil.system.files import NO_ROOM, write_json
from distil.system.limits import out_of_memory, shortage
from distil.system.redact import redact
from distil.system.stopping import interrupted, not_lost
from distil.types import DistilError, InputError, RunDiverged, RunFailed, RunInterrupted

logger = logging.getLogger(__name__)

FAILING = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EACCES, errno.EPERM)
"""What disks and their servers say that are there no more, or are no one's to write to."""
OF_TORCH = ("inline_container", "PytorchStreamWriter", "iostream error")
"""Of what torch says where a disk takes no more, without the error of the system."""
COMPUTED = (BEFORE, METRICS, RESULTS)
"""Files that took time to come by, as checkpoints do."""


@dataclass(frozen=True)
class _StatusFile:
    """The ``status.json`` of a run in ``folder``, from its start on."""

    folder: Path
    identity: str
    command: str
    started: str

    def write(self, state: str, reason: str | None = None, **more: bool) -> None:
        """Say that the run is ``state`` now. A failed run's own error wins over one of writing it down."""
        told = {
            "status": state,
            "reason": redact(reason),
            "identity": self.identity,
            "started": self.started,
            "finished": None if state == "running" else _now(),
            "command": self.command,
        }
        try:
            write_json(self.folder / STATUS, told | more)
        except OSError as error:
            if state != "failed":
                raise
            # A full disk: overwriting takes no new room, and the run's own error is what the user must see.
            logger.warning("%s could not be written: %s", STATUS, error)


@contextmanager
def kept_status(
    folder: Path, name: str, command: str, resumes: bool = True, less_memory: str = ""
) -> Iterator[None]:
    """Keep ``status.json`` true: running, then done, interrupted or failed with the reason.

    ``resumes``: ``run.resume`` of the run. Where it is false, ``command`` would remove the checkpoints.
    ``less_memory``: what to give where memory runs out.
    """
    file = _StatusFile(folder, name, command, _now())
    fresh = not (folder / STATUS).exists()
    try:
        file.write("running")
        with not_lost():
            yield
    except (KeyboardInterrupt, RunInterrupted) as error:
        stopped = error if isinstance(error, RunInterrupted) else interrupted("Stopped")
        file.write("interrupted", str(error) or "Ctrl-C")
        told = type(stopped)(f"{stopped} {_how_to_go_on(folder, command, resumes)}")
        _log_end(told)
        raise told from None
    except InputError as error:
        # Seen only once the data were tokenised: a run that never began leaves nothing behind. A plugin may
        # refuse as late as the last evaluation: what was computed stays.
        if fresh and not _computed(folder):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            file.write("failed", str(error))
            _log_end(error)
        raise
    except DistilError as error:
        file.write("failed", str(error), diverged=isinstance(error, RunDiverged))
        _log_end(error)
        raise
    except Exception as error:
        failure = known_failure(error, less_memory)
        file.write("failed", str(failure or f"{type(error).__name__}: {error}"))
        if failure is not None:
            _log_end(failure)
            raise failure from error
        logger.exception("The run failed.", extra={"file_only": True})
        raise
    file.write("done")
    logger.info("Done.")


@contextmanager
def told_how_to_go_on(folder: Path, command: str, resumes: bool) -> Iterator[None]:
    """Ctrl-C where ``kept_status`` does not hear it says how to go on, too: before a run is begun again, or a
    second time, while the first is being written down."""
    try:
        yield
    except KeyboardInterrupt:
        if status_of(folder) in (None, "done"):
            raise
        stopped = interrupted("Stopped")
        raise type(stopped)(f"{stopped} {_how_to_go_on(folder, command, resumes)}") from None


def _log_end(error: DistilError) -> None:
    """Keep in the log what the command line is about to say."""
    kind = logging.INFO if isinstance(error, RunInterrupted) else logging.ERROR
    text = " ".join(line.strip() for line in str(error).splitlines())
    logger.log(kind, "The run ends with exit code %d: %s", error.exit_code, text, extra={"file_only": True})


def _how_to_go_on(folder: Path, command: str, resumes: bool) -> str:
    who = f"The same command{'' if resumes else ' without run.resume=false'}"
    if published(folder / CHECKPOINTS):
        does = "goes on from the last checkpoint"
    elif _computed(folder):
        does = "goes on with training from its start"
    else:
        does = "begins the run again"
    return f"{who} {does}:\n  {resume_command(command, resumes)}"


def _computed(folder: Path) -> bool:
    """Whether a run directory holds what would have to be computed again."""
    return bool(published(folder / CHECKPOINTS)) or any((folder / name).exists() for name in COMPUTED)


def known_failure(error: Exception, less_memory: str = "") -> RunFailed | None:
    """The user's word for failures of the machine; None for what is a mistake of ours."""
    text = str(error)
    if out_of_memory(error):
        told = f"{shortage(error)} ({text.splitlines()[0] if text else 'MemoryError'})."
        further = "Shorter rows (data.max_length) and, in evaluation, a smaller eval.batch_size help too."
        return RunFailed(" ".join(filter(None, (told, less_memory, further))))
    if _is_disk_full(error):
        return RunFailed(
            f"The disk is full ({text}). What was written before is kept; free some space and run again."
        )
    if any(word in text for word in OF_TORCH):
        return RunFailed(
            f"A file could not be written ({text.splitlines()[0]}): is the disk full, or does it fail? What "
            "was written before is kept; once that is mended, the same command goes on."
        )
    if isinstance(error, OSError) and error.errno in FAILING:
        return RunFailed(
            f"A file could not be read or written ({text}). What was written before is kept; once that is "
            "mended, the same command goes on."
        )
    return None


def _is_disk_full(error: BaseException) -> bool:
    """Libraries say it each in their way: safetensors in words, torch only in what its error came from."""
    told = isinstance(error, OSError) and error.errno in NO_ROOM
    words = any(word in str(error) for word in ("No space left on device", "Disk quota exceeded"))
    before = error.__cause__ or error.__context__
    return told or words or (before is not None and _is_disk_full(before))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
