"""The commands that a message offers: to go on with a run, to make it once more."""

from __future__ import annotations

import re


def resume_command(command: str, resumes: bool) -> str:
    """The command that goes on from the last checkpoint: ``command``, unless that one starts afresh.

    ``resumes``: ``run.resume`` of its config.
    """
    if resumes:
        return command
    without = re.sub(r"\s\+{0,2}run\.resume=\S+", "", command)
    return without if without != command else f"{command} run.resume=true"  # a file says it, not the line


def rerun_command(command: str) -> str:
    """The command that makes the run of ``command`` once more, in a new folder."""
    return re.sub(r"\s\+{0,2}run\.rerun=\S+", "", command) + " run.rerun=true"
