"""Whether a run directory is whole: files parse, the config is the run's own, hashes are as recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distil import identity
from distil.engine import checkpoints
from distil.report.run_directory import AFTER_DIVERGENCE, GONE, RunRecord, read_run
from distil.run_files import BEFORE, CHECKPOINTS, OF_A_DONE_RUN, OF_EVERY_RUN, REPORT, SPENT, STATUS, STUDENT
from distil.system import environment, locks
from distil.system.files import read_json
from distil.system.redact import HIDDEN

UNREAD = (BEFORE, SPENT)
"""What read_run does not look at."""


@dataclass
class Findings:
    """What ``check_run`` came to."""

    record: RunRecord
    damaged: list[str] = field(default_factory=list)
    """A line each; empty: the run is whole."""
    edited: list[str] = field(default_factory=list)
    """Likewise, what people may change: the card of the student, files put beside it."""
    notes: list[str] = field(default_factory=list)
    """What was looked at, and what is odd but no damage."""
    newest: str | None = None
    """The checkpoint that training would go on from."""


def check_run(folder: Path) -> Findings:
    """Look at every file of the run in ``folder``; changes none. Raises InputError where it is no run."""
    found = Findings(read_run(folder))
    # A run that has lost its status.json was done if it had sealed its scores, or saved its student.
    sealed = (folder / checkpoints.MANIFEST).exists() or found.record.student is not None
    done = found.record.status == "done" or (found.record.status == "unknown" and sealed)
    for name in (*OF_EVERY_RUN, *(OF_A_DONE_RUN if done else ())):
        if not (folder / name).exists():
            found.damaged.append(f"{name} is missing")
    lines = re.compile(r"\.jsonl: lines")
    for problem in found.record.problems:
        # A kill in the middle of a line is no damage: who goes on writes it again.
        (found.notes if lines.search(problem) and not done else found.damaged).append(problem)
    found.damaged += _unread(folder)
    found.damaged += _other_config(found, folder)
    _checkpoints(folder / CHECKPOINTS, found)
    if done:
        _sealed(folder, found)
    if done and not (folder / REPORT).is_file():
        found.notes.append(f"report.html is not there: distil report {folder} writes it again")
    found.damaged = list(dict.fromkeys(found.damaged))
    return found


def outlook(found: Findings) -> list[str]:
    """What becomes of a run that is not done: whether a process is at it, and how it goes on."""
    record = found.record
    if record.status not in ("running", "interrupted", "failed"):
        return []
    said = []
    if record.status == "running":
        try:
            who = locks.in_use_by(record.path)
        except OSError as error:
            return [f"whether it is at work cannot be told: its lock cannot be asked ({error.strerror})"]
        if who is not None:
            return [f"at work: {who} has it"]
        said.append(GONE)
    if record.diverged:
        said.append(AFTER_DIVERGENCE)
    elif record.way_on:
        start = f"from {found.newest}" if found.newest else "with training from its start"
        said.append(f"goes on {start}: {record.way_on}")
    return said


def _unread(folder: Path) -> Iterator[str]:
    for name in UNREAD:
        if (folder / name).exists():
            try:
                read_json(folder / name)
            except (OSError, ValueError) as error:
                yield f"{name} cannot be read: {error}"


def _other_config(found: Findings, folder: Path) -> Iterator[str]:
    """Whether config.yaml still hashes to the run's identity. One with hidden secrets does not.

    Which keys count is for the code to say that the run was made with: other code is noted, and compares
    nothing.
    """
    record = found.record
    told: dict[str, Any] = dict(record.environment)
    try:
        wanted = str(read_json(folder / STATUS)["identity"])
        known = dict(told["fingerprints"])
        if "processes" in told:
            known["processes"] = str(told["processes"])
        code, ignored = str(told["code"]), [str(key) for key in told["ignored"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not record.config or HIDDEN in record.config_text:
        return
    if code != environment.code_version():
        found.notes.append("made by other code: whether config.yaml is the run's own cannot be told")
        return
    hashed = identity.run_identity(record.config, known, code, ignored)
    if hashed != wanted:
        yield (
            "config.yaml or environment.json is not the run's own any more: they hash to "
            f"{hashed}, the run is {wanted}"
        )


def _checkpoints(folder: Path, found: Findings) -> None:
    whole = []
    for each in checkpoints.published(folder):
        problems = checkpoints.verify(each)
        if problems and not each.exists():  # a run that is at work has removed it meanwhile
            continue
        found.damaged += [f"checkpoints/{each.name}: {problem}" for problem in problems]
        whole += [] if problems else [each.name]
    if whole:
        found.newest = whole[-1]
        found.notes.append(f"checkpoints that verify: {', '.join(whole)}")
    aside = sorted(each.name for each in folder.glob(f"*{checkpoints.DAMAGED}")) if folder.is_dir() else []
    if aside:
        found.notes.append(f"set aside as damaged before: {', '.join(aside)}")


def _sealed(folder: Path, found: Findings) -> None:
    """What the run wrote down of scores, costs, samples and student when it was done."""
    problems = checkpoints.changes(folder)
    found.damaged += problems
    found.edited = checkpoints.edits(folder, STUDENT)
    if not problems:
        found.notes.append("scores, costs, samples and student are as they were when the run was done")
