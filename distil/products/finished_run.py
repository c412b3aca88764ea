"""A finished run's student as its run directory holds it: read and checked, nothing of it loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from distil.adapters.base import Adapter, adapter_of
from distil.adapters.existing import ADAPTER_CONFIG, SIDECAR, WEIGHTS
from distil.commands import rerun_command
from distil.config.saved import saved_config
from distil.config.schema import ExperimentConfig, ModelConfig, TeacherConfig
from distil.config.validate import check_packages
from distil.data.base import ColumnsConfig
from distil.data.columns import Shape
from distil.data.prompting import likely_shape
from distil.models.sources import Source
from distil.report.run_directory import AFTER_DIVERGENCE, RunRecord, read_run
from distil.report.seal import USED, since_done
from distil.run_files import CONFIG, STATUS, STUDENT
from distil.system.files import check_output, read_json
from distil.types import InputError

WHOLE = ("model.safetensors", "model.safetensors.index.json")
"""What holds the weights of a student without an adapter."""


@dataclass(frozen=True)
class FinishedRun:
    """A run directory whose student is there."""

    folder: Path
    config: ExperimentConfig
    record: RunRecord

    @property
    def student(self) -> Path:
        """The folder of its product."""
        return self.folder / STUDENT

    @property
    def prompts(self) -> list[str]:
        """Held-out prompts as its samples show them."""
        return [sample.prompt for sample in self.record.samples]

    @property
    def shape(self) -> Shape:
        """The shape of the rows that it was trained on: as recorded, else the likely one."""
        config = self.config.data
        assert isinstance(config, ColumnsConfig)
        return self.recorded_shape or likely_shape(config, self.prompts)

    @property
    def recorded_shape(self) -> Shape | None:
        """What it wrote down of that; None where it did not."""
        results = self.record.results
        return None if results is None else Shape.read(results.data.get("shape"))

    @property
    def source(self) -> Source:
        """Its product as a model is named: code of its own runs where it ran in training."""
        model = self.config.model
        start = model.teacher if model.student.path is None else model.student
        return Source("student", str(self.student), self.student, trust_remote_code=start.trust_remote_code)

    @property
    def command(self) -> str:
        """The command line that made it."""
        return self.record.command

    @property
    def way_out(self) -> str:
        """What to do where something of it is damaged."""
        return f"Copy the run directory again, or make the run once more: {rerun_command(self.command)}"

    @property
    def config_file(self) -> Path:
        """The file that names its models."""
        return self.folder / CONFIG

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        config = self.config
        return f"{config.method.name} student of {config.model.teacher.path or config.model.student.path}"

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """Keys of ``BitsAndBytesConfig`` by which the base under the adapter was held; None: it was whole."""
        return self.adapter.quantization

    @property
    def adapter(self) -> Adapter[Any]:
        """What the student was trained through."""
        return adapter_of(self.config.peft)

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """How the base under the adapter is made. Raises InputError where the file does not say."""
        try:
            content = read_json(self.student / SIDECAR)
            return {"kept_layers": content["kept_layers"], "base_print": str(content["base_print"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.student / SIDECAR} is missing or damaged ({type(error).__name__}: {error}), and it "
                "says which base the adapter stands on. Copy it again, or make the run once more: "
                f"{rerun_command(self.command)}"
            ) from error

    @property
    def base(self) -> ModelConfig:
        """Where the base under the adapter comes from: the run's config with the layers that were kept."""
        model = self.config.model
        student = replace(model.student, keep_layers=self.sidecar["kept_layers"], adapter=None)
        return replace(model, student=student, teacher=TeacherConfig() if student.path else model.teacher)


def open_run(folder: Path) -> FinishedRun:
    """The finished run in ``folder``. Imports nothing heavy.

    Raises InputError for a folder that is no run, a run without its student or with another than it left, and
    a config that does not fit.
    """
    record = read_run(folder)
    if record.status != "done":
        reason = f" ({record.reason})" if record.reason else ""
        way = f"This command goes on with it:\n  {record.way_on or 'see its config.yaml'}"
        if record.diverged:
            way = f"{AFTER_DIVERGENCE[0].upper()}{AFTER_DIVERGENCE[1:]}."
        if record.status == "unknown":
            told = next((line for line in record.problems if line.startswith(STATUS)), f"{STATUS} is missing")
            raise InputError(f"{folder}: {told.rstrip('.')}, so its student may be any. {way}")
        raise InputError(
            f"{folder}: this run is {record.state}{reason}, so its student is not there yet. {way}"
        )
    if not record.config:
        told = "; ".join(record.problems) or "config.yaml is missing"
        raise InputError(f"{folder}: {told}. It says how the student was made: restore it.")
    run = FinishedRun(folder, saved_config(folder / CONFIG, record.config), record)
    wanted = (ADAPTER_CONFIG, WEIGHTS, SIDECAR) if run.adapter.adapts else ("config.json",)
    absent = [name for name in wanted if not (run.student / name).is_file()]
    if not run.adapter.adapts and not any((run.student / name).is_file() for name in WHOLE):
        absent.append(WHOLE[0])
    if absent:
        raise InputError(
            f"{run.student} lacks {' and '.join(absent)}, so there is no student to load. {run.way_out}"
        )
    if changed := [line for line in since_done(folder, USED) if _makes_results(line)]:
        raise InputError(f"{folder}: {'; '.join(changed[:3])}: its student is damaged. {run.way_out}")
    check_packages(run.config)
    return run


def check_export(run: FinishedRun, output: Path, *, merged: bool) -> None:
    """Raise InputError for a merge that cannot be, and an output that is there already."""
    name = run.config.peft.name
    if merged and not run.adapter.adapts:
        raise InputError(
            f"--merge: {run.folder} has no adapter (peft={name}), its student is a plain model already. "
            "Leave --merge out."
        )
    if merged and run.adapter.no_merge is not None:
        raise InputError(
            f"--merge: {run.adapter.no_merge}. Leave --merge out: adapter and base are exported."
        )
    check_output(output)


def _makes_results(line: str) -> bool:
    """Whether ``line`` of ``since_done`` is about what the student computes with; the rest may be edited."""
    name = line.split()[0]
    computes = name.endswith((".safetensors", ".safetensors.index.json", ".py"))
    return name.startswith("student/") and (
        computes or name.removeprefix("student/") in ("config.json", ADAPTER_CONFIG, SIDECAR)
    )
