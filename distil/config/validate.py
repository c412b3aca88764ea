"""Checks that need several parts of the config, or a registry, and neither data nor models."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from distil.adapters.base import Adapter, adapter_of
from distil.config.schema import ExperimentConfig, MethodConfig, check
from distil.data.base import DATA
from distil.methods.base import Method, method_of
from distil.metrics.base import METRICS, OF_TEACHER, Need
from distil.system.extras import install
from distil.teacher_cache.formats.base import format_of
from distil.types import REFERENCE, ROLLOUT


def validate(config: ExperimentConfig) -> None:
    """Raise InputError for a config that cannot run whatever its files hold. Imports nothing heavy."""
    method = method_of(config.method)
    DATA.get(config.data.name)
    _check_adapter(config, adapter_of(config.peft))
    _check_metrics(config)
    _check_teacher_cache(config, method)
    _check_best(config, method)
    check(
        not (config.run.max_skipped_steps and config.run.detect_anomaly),
        f"run.max_skipped_steps={config.run.max_skipped_steps} with run.detect_anomaly=true, which stops at "
        "the first nan: set one of them.",
    )
    check(
        not (config.run.max_skipped_steps and config.trainer.fp16),
        f"run.max_skipped_steps={config.run.max_skipped_steps} with trainer.fp16=true: its scaler leaves out "
        "steps by itself, and a loss that is no number stops the run. Take trainer.bf16=true, or "
        "run.max_skipped_steps=0.",
    )
    teacher, student = config.model.teacher.path, config.model.student.path
    if method.needs_teacher:
        check(
            teacher is not None,
            f"model.teacher.path=null, and method={config.method.name} learns from a teacher. Give "
            "model.teacher.path=FOLDER_OR_HUB_NAME (beside a student of your own, the teacher of a ready "
            "pair is not used), or a method that needs none: method=sft.",
        )
    check(
        teacher is not None or student is not None,
        "model.student.path=null and model.teacher.path=null: give at least one, a folder or a hub name, "
        "or choose a pair: model=embedded, gpt2, qwen, smollm2.",
    )


def _check_metrics(config: ExperimentConfig) -> None:
    """Refuse metrics of which none can be computed: the run would end in no score."""
    wanted = {name: METRICS.get(name).factory.requires for name in config.eval.metrics}
    missing = {}
    if not config.eval.teacher:
        missing[Need.TEACHER] = "eval.teacher=false"
    elif config.model.teacher.path is None:
        missing[Need.TEACHER] = "model.teacher.path=null"
    if not config.eval.generation_rows:
        missing[Need.GENERATIONS] = "eval.generation_rows=0"
    lacking = {
        name: [missing[need] for need in Need if need in needs and need in missing]
        for name, needs in wanted.items()
    }
    check(
        not wanted or not all(lacking.values()),
        f"eval.metrics=[{','.join(wanted)}]: nothing would be evaluated. "
        + "; ".join(f"{name} cannot be computed with {' and '.join(why)}" for name, why in lacking.items())
        + f". Change that, or add likelihood: 'eval.metrics=[{','.join(['likelihood', *wanted])}]'.",
    )


def _check_teacher_cache(config: ExperimentConfig, method: Method[MethodConfig]) -> None:
    """Refuse a cache that cannot say what the method asks about the data set."""
    kept = format_of(config.teacher_cache)
    for term in method.questions(REFERENCE):
        why = kept.refusal(term)
        check(why is None, f"teacher_cache={kept.config.name} with method={config.method.name}: {why}.")


def _check_best(config: ExperimentConfig, method: Method[MethodConfig]) -> None:
    """Refuse to choose a student by what no teacher is there to measure while it trains."""
    teacher, by = config.model.teacher, config.trainer.metric_for_best_model
    if by is None or config.trainer.best_by not in OF_TEACHER:
        return
    # As distil.teacher has it: where training keeps a teacher beside it, the evaluation may ask that.
    stored = format_of(config.teacher_cache).stores and not method.asks_teacher_about(ROLLOUT)
    there = config.eval.teacher or (method.needs_teacher and (teacher.is_self or not stored))
    why = "eval.teacher=false" if teacher.path is not None else "model.teacher.path=null"
    check(
        teacher.path is not None and there,
        f"trainer.metric_for_best_model={by} with {why}: no teacher scores the validation rows. Give one, or "
        "take trainer.metric_for_best_model=nll_per_token.",
    )


def _check_adapter(config: ExperimentConfig, adapter: Adapter[Any]) -> None:
    """What an adapter needs, and what does not go with it."""
    name, model = config.peft.name, config.model
    for key in ("gradient_checkpointing", "activation_checkpointing"):  # two names of one thing
        check(
            not getattr(config.trainer, key) or adapter.gradient_checkpointing,
            f"trainer.{key}=true with peft={name}: it does not work in PEFT. Set it to false: an adapter "
            "needs little memory for gradients anyway.",
        )
    check(
        not model.teacher.is_self or adapter.keeps_base,
        _why_not_self(config, adapter),
    )
    check(
        adapter.quantization is None or model.student.init != "random",
        f"peft={name} with model.student.init=random: quantised weights are loaded, not drawn. Take "
        "peft=lora, or a pretrained student.",
    )
    existing = model.student.adapter
    check(
        existing is None or adapter.adapts,
        f"model.student.adapter={existing} with peft={name}: choose the peft that it was made with.",
    )
    check(
        existing is None or adapter.no_resume is None,
        f"model.student.adapter={existing} with peft={name}: {adapter.no_resume}",
    )


def check_packages(config: ExperimentConfig) -> None:
    """Raise InputError for a package that the config needs and that is not installed. Imports none."""
    adapter = adapter_of(config.peft)
    keys = dict.fromkeys(adapter.packages, f"peft={config.peft.name}")
    kind = config.model.teacher.quantization
    if kind is not None:
        keys.setdefault("bitsandbytes", f"model.teacher.quantization={kind}")
    if config.trainer.use_liger_kernel:
        check(
            find_spec("liger_kernel") is not None,
            "trainer.use_liger_kernel=true needs the package liger-kernel, which is not installed: "
            "install it, or leave the key out.",
        )
    for package, key in keys.items():
        check(
            find_spec(package) is not None,
            f"{key} needs the package {package}, which is not installed: {install('adapters')}",
        )
    needed, optim = config.trainer.optimizer_package, config.trainer.optim
    way = install("adapters") if needed == "bitsandbytes" else "install it"
    check(
        needed is None or find_spec(needed) is not None,
        f"trainer.optim={optim} needs the package {needed}, which is not installed: {way}, or take "
        "trainer.optim=adamw_torch.",
    )


def _why_not_self(config: ExperimentConfig, adapter: Adapter[Any]) -> str:
    if not adapter.adapts:
        return (
            "model.teacher.path=self is the student with its adapter off, and peft=none has none. Choose "
            "peft=lora (or another), or give the teacher a path."
        )
    return (
        f"model.teacher.path=self is the student with its adapter off, but this peft={config.peft.name} "
        "changes the base itself (peft.bias or peft.init_lora_weights). Set peft.bias=none and "
        "peft.init_lora_weights=true."
    )
