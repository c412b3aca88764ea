"""What a card is about: a finished run, what of it is written, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distil.origins import Origin, data_of, start_of, teacher_of
from distil.report.run_directory import mapping, number

if TYPE_CHECKING:
    from distil.config.schema import ExperimentConfig
    from distil.products.finished_run import FinishedRun
    from distil.report.run_directory import RunRecord


@dataclass(frozen=True)
class Subject:
    """A student, and its origins."""

    run: FinishedRun
    kind: str
    """``model``, ``adapter`` or ``merged``: what is written of it."""
    start: Origin
    """The student before."""
    teacher: Origin | None
    data: Origin

    @classmethod
    def of(cls, run: FinishedRun, kind: str) -> Subject:
        """The student of ``run``."""
        config = run.config
        return cls(run, kind, start_of(config), teacher_of(config), data_of(config.data))

    @property
    def config(self) -> ExperimentConfig:
        """What was asked for."""
        return self.run.config

    @property
    def record(self) -> RunRecord:
        """What came of it."""
        return self.run.record

    def parameters(self, of: str) -> float | None:
        """How many parameters ``teacher`` or ``student`` has, or are ``trainable``."""
        return number(mapping((self.record.cost or {}).get("parameters")).get(of))

    @property
    def kept_layers(self) -> int | list[int] | None:
        """Which layers of the student's files were kept, or how many; None: all."""
        kept: int | list[int] | None = self.config.model.student.keep_layers
        if self.run.adapter.adapts:
            kept = self.run.sidecar["kept_layers"]
        return kept

    @property
    def changed(self) -> str:
        """What was made of the student's files before training, to be put after their name."""
        if self.config.model.student.init == "random":
            return ", its weights drawn afresh"
        kept = self.kept_layers
        if kept is None:
            return ""
        if isinstance(kept, int):
            return f", {kept} of its layers kept"
        return f", its layers {', '.join(map(str, kept))} kept"

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        start, teacher, kept = self.start, self.teacher, self.kept_layers
        how = "fine-tuned" if teacher is None else "distilled"
        cut = "" if kept is None else f", cut to {kept if isinstance(kept, int) else len(kept)} layers"
        if teacher is None or teacher.name == start.name:
            title = f"{start.name}{cut} and {how}" if cut else f"{start.name}, {how}"
        else:
            title = f"{start.name}{cut}, distilled from {teacher.name}"
        return title[:1].upper() + title[1:]
