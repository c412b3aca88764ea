"""The training of one run: its trainer, the room that it needs, and where it goes on from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainingArguments

from distil.adapters.base import adapter_of
from distil.advice import advice
from distil.changed import SameRun
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.engine import checkpoints
from distil.engine.anatomy import is_adapted, to_device
from distil.engine.broken_steps import BrokenSteps
from distil.engine.callbacks import FirstCheckpoint, InterruptGuard, ProgressBar
from distil.engine.checkpoint_reading import numbers_only
from distil.engine.evaluation import pad_id, score_rows
from distil.engine.scalars import MetricsLog
from distil.engine.trainer import DistillationTrainer
from distil.engine.trial_step import try_step
from distil.methods.base import Method
from distil.parts import Parts
from distil.processes import ranks
from distil.processes.sharded import starting
from distil.run_files import BROKEN_STEPS, CHECKPOINTS, METRICS
from distil.system.files import remove
from distil.system.printable import one_line
from distil.system.progress import Progress
from distil.system.stopping import interrupted
from distil.teacher import TeacherAccess
from distil.tracking import Tracker
from distil.types import InputError

logger = logging.getLogger(__name__)


def place(parts: Parts, arguments: TrainingArguments, output: Path) -> None:
    """Models to the device, and room for the checkpoints on the disk."""
    for model in (parts.student, parts.teacher):
        if model is not None:
            to_device(model, arguments.device)
    if arguments.save_strategy != "no" and ranks.is_main():
        saved, trained = saved_and_trained_bytes(parts.student)
        keep = arguments.save_total_limit or 2  # null: all, however many those will be
        needed = checkpoints.space_needed(saved, trained, keep)
        # What a run that goes on has already written needs no room again.
        there = sum(
            path.stat().st_size for path in Path(arguments.output_dir or "").rglob("*") if path.is_file()
        )
        checkpoints.ensure_space(output, needed - there)


def saved_and_trained_bytes(student: PreTrainedModel) -> tuple[int, int]:
    """Bytes of the weights that a checkpoint holds, and of those that train: behind an adapter, the same."""
    trained = sum(p.numel() * p.element_size() for p in student.parameters() if p.requires_grad)
    whole = sum(p.numel() * p.element_size() for p in student.parameters())
    return trained if is_adapted(student) else whole, trained


def training_arguments(config: ExperimentConfig, folder: Path) -> TrainingArguments:
    """The user's trainer keys, and those that are the runner's own. InputError for what does not fit."""
    chosen = config.trainer.arguments()
    if config.trainer.fp16 and (config.trainer.use_cpu or not torch.accelerator.is_available()):
        raise InputError(
            "trainer.fp16=true needs a GPU, and none is used here. Leave it out, or take trainer.bf16=true."
        )
    chosen = _for_this_device() | chosen
    chosen.setdefault("dataloader_pin_memory", torch.cuda.is_available())  # else a warning and nothing gained
    try:
        with starting():
            arguments = TrainingArguments(
                **chosen,
                output_dir=str(folder / CHECKPOINTS),
                seed=config.seed,
                report_to=[],
                disable_tqdm=True,
                label_names=["labels"],  # else a warning about a wrapped model, and nothing gained
                remove_unused_columns=False,
                logging_nan_inf_filter=False,
            )
    except Exception as error:  # of what is no number or name: files, settings of accelerate
        raise InputError(
            f"trainer: transformers refuses these keys together: {one_line(error, 600)}"
        ) from error
    try_step(arguments, torchs_optimizer=config.trainer.optimizer_package is None)
    return arguments


def _for_this_device() -> dict[str, Any]:
    if torch.accelerator.is_available():
        return {}
    if ranks.zero():  # told of a CPU, accelerate would leave DeepSpeed out, and told nothing, the others
        return {"use_cpu": False, "ddp_backend": "gloo"}
    return {"use_cpu": True}  # or it refuses bf16


def build_trainer(
    config: ExperimentConfig,
    method: Method[MethodConfig],
    parts: Parts,
    teacher: TeacherAccess,
    arguments: TrainingArguments,
    folder: Path,
    tracker: Tracker,
) -> tuple[DistillationTrainer, MetricsLog]:
    """The trainer with its cheap evaluation, and the log of its scalars."""
    rows = parts.rows_while_training(config.eval).to_list()
    pad = pad_id(parts.tokenizer)

    def evaluate_student(model: PreTrainedModel) -> dict[str, float]:
        with log.paused():
            if ranks.sharded():  # all of them, of the same rows: each layer's weights come from all
                return in_one_process(model)
            return ranks.from_main(lambda: in_one_process(model))

    def in_one_process(model: PreTrainedModel) -> dict[str, float]:
        return score_rows(
            model,
            teacher.validation,
            rows,
            pad,
            arguments.per_device_eval_batch_size,
            parts.shared_vocabulary,
        ).while_training()

    trainer = DistillationTrainer(
        method,
        parts.student,
        parts.teacher if method.needs_teacher else None,
        parts.splits.train.select_columns(["input_ids", "labels", "prompt_ids"]).to_list(),
        arguments,
        rollouts=config.rollouts,
        eos_ids=parts.eos_ids,
        pad_id=pad,
        shared_vocabulary=parts.shared_vocabulary,
        packing=config.run.packing,
        evaluate_student=evaluate_student,
        cached=teacher.train,
        broken_steps=BrokenSteps(
            config.run.max_skipped_steps, folder / BROKEN_STEPS, parts.splits.train["row"][:]
        ),
    )
    log = MetricsLog(folder / METRICS, tracker.log, trainer.tokens_seen)
    if ranks.is_main():
        trainer.add_callback(log)
        trainer.kept["clock"] = log
    return trainer, log


def advise(config: ExperimentConfig, trainer: DistillationTrainer) -> list[str]:
    """Say what is odd about the run that is about to start. Returns it, with what is odd about its learning
    rate, which was said before anything loaded."""
    steps = trainer.planned_steps()
    said = advice(config, trainer.terms(), steps, trainer.args.get_warmup_steps(steps))
    for line in said:
        logger.warning(line, extra={"said_once": True})
    rate = adapter_of(config.peft).odd_rate(config.trainer.learning_rate)
    return [rate, *said] if rate else said


def train(trainer: DistillationTrainer, folder: Path, config: ExperimentConfig, progress: Progress) -> None:
    """Train, from the newest checkpoint that verifies.

    Raises RunInterrupted where Ctrl-C or a signal stopped it, RunDiverged where losses or weights are no
    numbers, RunFailed for a method that asks for rollouts and got none and for a checkpoint that holds code.
    """
    checkpoint = ranks.from_main(lambda: _checkpoint(folder / CHECKPOINTS, config.run.resume, progress))
    trainer.kept["run"] = SameRun(folder)
    bar = ProgressBar(progress, trainer.tokens_seen)
    trainer.add_callback(bar)
    trainer.add_callback(FirstCheckpoint(progress.say))
    with InterruptGuard() as guard, bar, torch.autograd.set_detect_anomaly(config.run.detect_anomaly):
        trainer.add_callback(guard)
        with numbers_only(checkpoint):
            trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.state.global_step < trainer.state.max_steps:
        raise interrupted(f"Stopped after step {trainer.state.global_step} of {trainer.state.max_steps}")
    if guard.asked:  # during the last step: what is left to stop is the evaluation
        raise interrupted("Stopped after the last step")
    trainer.refuse_broken_student()


def _checkpoint(root: Path, resume: bool, progress: Progress) -> str | None:
    """Where training goes on from."""
    if not resume and root.exists():
        remove(root)
    checkpoint, problems = checkpoints.newest_valid(root)
    for problem in problems:
        logger.warning(problem)
    if checkpoint is None:
        return None
    step = checkpoint.name.rpartition("-")[2]
    progress.say(f"Going on from {checkpoint.name}, after step {step}.")
    return str(checkpoint)
