"""Students that the library saved: a folder of ``save_student``, with no run around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil import run_files
from distil.adapters.base import ADAPTERS, Adapter
from distil.adapters.existing import ADAPTER_CONFIG, SIDECAR, check_folder
from distil.cards.library import CONFIG, saved_shape
from distil.config.schema import ExperimentConfig, ModelConfig, StudentConfig, TeacherConfig
from distil.config.validate import check_packages
from distil.data.columns import Shape
from distil.data.jsonl import JsonlConfig
from distil.methods.sft import SFTConfig
from distil.products.finished_run import FinishedRun, open_run
from distil.report.run_directory import RunRecord
from distil.system.files import read_json
from distil.types import InputError


@dataclass(frozen=True)
class SavedStudent(FinishedRun):
    """What ``save_student`` of the library wrote: a folder with no run around it."""

    told: Mapping[str, Any]
    """What ``distil.json`` says; empty beside a whole model."""

    @property
    def student(self) -> Path:
        """The folder itself."""
        return self.folder

    @property
    def recipe(self) -> Path:
        """The file that names its base."""
        return self.folder / SIDECAR

    @property
    def recorded_shape(self) -> Shape | None:
        """Of rows of text; of token ids nothing is known."""
        return saved_shape(self.folder)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"{self.told.get('method', 'distilled')} student of {self.told.get('teacher', 'a teacher')}"

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """How the caller's base was held, which LoRA itself does not say."""
        held = self.told.get("held")
        if not held:
            return None
        entry = ADAPTERS.get("qlora")
        assert entry.config is not None
        adapter: Adapter[Any] = entry.factory(entry.config(**held))
        return adapter.quantization


def open_product(folder: Path, *, trust: bool = False) -> FinishedRun:
    """The finished run in ``folder``, or around it, or the student that the library saved there.

    ``trust``: whether who opens it lets Python files beside its models run, where the run's config says so: a
    run may be somebody else's. Raises InputError as ``open_run`` does, and for models of others.
    """
    run = _opened(folder)
    models = {"teacher": run.config.model.teacher, "student": run.config.model.student}
    if trusted := [who for who, model in models.items() if model.trust_remote_code and not trust]:
        raise InputError(
            f"{run.config_file} says model.{trusted[0]}.trust_remote_code=true: Python files beside its "
            "models would run with all your rights. If they are yours, or you have read them, add "
            "--trust-remote-code."
        )
    return run


def _opened(folder: Path) -> FinishedRun:
    made = (folder / "config.json").is_file() or (folder / ADAPTER_CONFIG).is_file()
    if made and (folder / run_files.CONFIG).is_file() and not (folder / run_files.STATUS).is_file():
        raise InputError(
            f"{folder} is what distil export wrote, for transformers and PEFT: its README has the code. Give "
            "the run that it came from."
        )
    if (folder / run_files.CONFIG).is_file() or (folder / run_files.STATUS).is_file():
        return open_run(folder)
    if folder.name == run_files.STUDENT and (folder.parent / run_files.CONFIG).is_file():
        return open_run(folder.parent)
    if (folder / ADAPTER_CONFIG).is_file():
        if not (folder / SIDECAR).is_file():
            raise InputError(
                f"{folder} holds an adapter but no {SIDECAR}, which says on which base it stands. PEFT loads "
                "and merges it: PeftModel.from_pretrained(base, FOLDER).merge_and_unload()."
            )
        return _adapter(folder)
    if not (folder / "config.json").is_file():
        return open_run(folder)  # which says what is missing
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{folder} is a plain model already, and neither a run nor what save_student wrote: transformers "
            "loads it, AutoModelForCausalLM.from_pretrained(FOLDER). For a verb, give the run it came from."
        )
    return _product(folder, "none", StudentConfig(path=str(folder.absolute()), dtype="auto"), 0, {})


def _adapter(folder: Path) -> SavedStudent:
    try:
        told = read_json(folder / SIDECAR)
        # Whether code may run is said by who loads, not by what is loaded.
        model = StudentConfig(**told["model"] | {"trust_remote_code": False})
        ADAPTERS.get(told["peft"])
        seed, _ = int(told["seed"]), (told["kept_layers"], told["base_print"])
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{folder / SIDECAR} is damaged ({type(error).__name__}: {error}). Save the student again."
        ) from error
    check_folder(folder)
    return _product(folder, told["peft"], model, seed, told)


def _product(
    folder: Path, peft: str, model: StudentConfig, seed: int, told: Mapping[str, Any]
) -> SavedStudent:
    adapter = ADAPTERS.get(peft).config
    assert adapter is not None
    config = ExperimentConfig(
        seed=seed,
        method=SFTConfig(),  # the one that asks no teacher: what the library's was is not on disk
        model=ModelConfig("custom", TeacherConfig(), model),
        peft=adapter(),
        # Prompts as the library writes those of columns with well-known names, rows cut where it cut them.
        data=JsonlConfig(max_length=_max_length(folder)),
    )
    check_packages(config)
    record = RunRecord(folder, "done", "", "", "", "", {}, "", {}, None, None)
    return SavedStudent(folder, config, record, told)


def _max_length(folder: Path) -> int:
    """Of the DistillationConfig there; the runner's own where an adapter came without."""
    if not (folder / CONFIG).is_file():
        return JsonlConfig().max_length
    try:
        return int(read_json(folder / CONFIG)["max_length"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / CONFIG} is damaged ({type(error).__name__}: {error}). Save the student again."
        ) from error
