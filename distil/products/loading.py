"""A finished run's student, base and teacher, loaded again from its run directory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distil.adapters.existing import ADAPTER_CONFIG, WEIGHTS, same_base
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import check_models
from distil.models.sources import teacher_source
from distil.products.finished_run import FinishedRun
from distil.system.printable import one_line
from distil.system.quiet import no_hints, quiet_transformers
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
            f"{error} ({run.config_file} names it; a relative path starts where the run did.)"
        ) from error
