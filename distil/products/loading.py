"""A finished run's student, base and teacher, loaded again from its run directory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.adapters.base import Adapter, adapter_of
from distil.adapters.existing import ADAPTER_CONFIG, SIDECAR, WEIGHTS, same_base
from distil.commands import rerun_command
from distil.config.saved import saved_config
from distil.config.schema import ExperimentConfig, ModelConfig, StudentConfig, TeacherConfig
from distil.config.validate import check_packages
from distil.models import check_models
from distil.models.sources import Source, teacher_source
from distil.report.run_directory import DIVERGED, RunRecord, read_run
from distil.report.seal import USED, since_done
from distil.run_files import CONFIG, STATUS, STUDENT
from distil.system.files import read_json
from distil.system.printable import one_line
from distil.system.quiet import no_hints, quiet_transformers
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    def recipe(self) -> Path:
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
            way = f"{DIVERGED[0].upper()}{DIVERGED[1:]}."
        if record.status == "unknown":
            told = next((line for line in record.problems if line.startswith(STATUS)), f"{STATUS} is missing")
            raise InputError(f"{folder}: {told.rstrip('.')}, so its student may be any. {way}")
        raise InputError(
            f"{folder}: this run is {record.status}{reason}, so its student is not there yet. {way}"
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


def _makes_results(line: str) -> bool:
    """Whether ``line`` of ``since_done`` is about what the student computes with; the rest may be edited."""
    name = line.split()[0]
    computes = name.endswith((".safetensors", ".safetensors.index.json", ".py"))
    return name.startswith("student/") and (
        computes or name.removeprefix("student/") in ("config.json", ADAPTER_CONFIG, SIDECAR)
    )


def load_tokenizer(run: FinishedRun) -> PreTrainedTokenizerBase:
    """The tokenizer that was saved with the student."""
    from transformers import AutoTokenizer

    from distil.models.load import from_source

    with quiet_transformers():
        tokenizer: PreTrainedTokenizerBase = from_source(AutoTokenizer.from_pretrained, run.source, False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(run: FinishedRun) -> PreTrainedModel:
    """The model under the adapter, held as in training (quantised where it was).

    Raises InputError where its files are gone, or are not those that the adapter was trained on.
    """
    from distil.models import load_student

    network, model = run.config.run.allow_network, run.base
    with _named(run), no_hints():
        check_models(model, allow_network=network)
        loaded = load_student(
            model, run.config.seed, None, quantization=run.quantization, allow_network=network
        )
    wanted = run.sidecar["base_print"]
    if not same_base(wanted, loaded.base_print):
        raise InputError(
            f"{run.student} was trained on other weights (fingerprint {wanted}) than {loaded.name} has now "
            f"({loaded.base_print}): the model at that path was changed since. Put the original back there."
        )
    return loaded.model


def put_on(base: PreTrainedModel, run: FinishedRun) -> PreTrainedModel:
    """``base`` behind the adapter that the run saved, in eval mode. Raises InputError for a damaged one."""
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), no_hints():
            # Some starts (PiSSA) split the base by chance: as the run did, by its seed.
            torch.manual_seed(run.config.seed)
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            warnings.filterwarnings("error", "Found missing adapter keys")
            student: Any = PeftModel.from_pretrained(base, str(run.student))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, UserWarning) as error:
        raise InputError(
            f"{run.student}: {WEIGHTS} or {ADAPTER_CONFIG} is damaged, or not of this run "
            f"({type(error).__name__}: {one_line(error)}). Copy the folder again."
        ) from error
    student.requires_grad_(False)
    student.train(False)
    adapted: PreTrainedModel = student
    return adapted


def load_product(run: FinishedRun) -> PreTrainedModel:
    """The student as it left the run: a whole model, or base and adapter. In eval mode, on its device."""
    if run.adapter.adapts:
        return _placed(put_on(load_base(run), run), run)
    from distil.models import load_student

    saved = run.config.model.student
    student = StudentConfig(
        path=str(run.student.absolute()),
        dtype=saved.dtype,
        attn_implementation=saved.attn_implementation,
        device_map=saved.device_map,
        trust_remote_code=run.source.trust_remote_code,
    )
    with no_hints():
        model = load_student(ModelConfig("saved", TeacherConfig(), student), run.config.seed).model
    model.requires_grad_(False)
    model.train(False)
    return _placed(model, run)


def load_run_teacher(run: FinishedRun, student: PreTrainedModel) -> PreTrainedModel | None:
    """The run's teacher: loaded again, ``student`` with its adapter off, or None where there was none."""
    from distil.engine.self_teacher import adapter_off
    from distil.models import load_teacher

    model, network = run.config.model, run.config.run.allow_network
    if model.teacher.is_self:
        return adapter_off(student)
    if model.teacher.path is None:
        return None
    alone = replace(model, student=StudentConfig())
    with _named(run), no_hints():
        check_models(alone, allow_network=network)
        teacher = load_teacher(alone, allow_network=network)
    return None if teacher is None else _placed(teacher, run)


def teacher_ends(run: FinishedRun) -> tuple[int, ...]:
    """The ids at which the run's teacher ends its answers, from its files; none where those are gone."""
    from transformers import AutoConfig, GenerationConfig

    from distil.engine.anatomy import eos_ids
    from distil.models.load import from_source

    network = run.config.run.allow_network
    try:
        source = teacher_source(run.config.model)
        if source is None:
            return ()
        try:
            settings: Any = from_source(GenerationConfig.from_pretrained, source, network)
        except InputError:  # as transformers does where a model has no such file
            settings = from_source(AutoConfig.from_pretrained, source, network).get_text_config()
    except InputError:
        return ()
    return tuple(eos_ids(settings))


def _placed(model: PreTrainedModel, run: FinishedRun) -> PreTrainedModel:
    """``model`` on the device that the run used, or would use here."""
    import torch

    from distil.engine.anatomy import to_device

    if not run.config.trainer.use_cpu and torch.accelerator.is_available():
        to_device(model, torch.accelerator.current_accelerator())
    return model


@contextmanager
def _named(run: FinishedRun) -> Iterator[None]:
    """Say of models that cannot be loaded where their path is from."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{error} ({run.recipe} names it; a relative path starts where the run did.)"
        ) from error
