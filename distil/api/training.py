"""One training of the library: the engine's trainer, fed by what the caller gave."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.trainer_utils import TrainOutput

from distil import checkpoints
from distil.advice import advice
from distil.api.errors import in_words, require
from distil.callbacks import ProgressBar
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.evaluation import score_rows
from distil.files import read_json
from distil.methods.base import Method
from distil.models.load import quiet
from distil.stages import training_arguments
from distil.trainer import DistillationTrainer
from distil.types import RunFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is trained, and on what."""

    method: Method[MethodConfig]
    student: PreTrainedModel
    teacher: PreTrainedModel
    rows: Sequence[dict[str, Any]]
    held_out: Sequence[dict[str, Any]] | None
    experiment: ExperimentConfig
    stops: Collection[int]
    pad_id: int
    shared_vocabulary: int


def train(
    job: Job, given: TrainingArguments | None, resume: str | Path | bool | None
) -> tuple[TrainOutput, list[dict[str, float]]]:
    """Train ``job.student`` in place: Trainer's output, and what was logged."""
    arguments = _own_arguments(job) if given is None else _given_arguments(given, job)
    root = Path(arguments.output_dir or "")
    checkpoint = _checkpoint(root, resume)
    set_seed(arguments.seed)
    trainer = DistillationTrainer(
        job.method,
        job.student,
        job.teacher if job.method.needs_teacher else None,
        job.rows,
        arguments,
        rollouts=job.experiment.rollouts,
        eos_ids=sorted(job.stops),
        pad_id=job.pad_id,
        shared_vocabulary=job.shared_vocabulary,
        evaluate_student=None if job.held_out is None else _evaluation(job, arguments),
    )
    _advise(trainer, job)
    bar = ProgressBar(Console(stderr=True), trainer.tokens_seen)
    if arguments.disable_tqdm:
        trainer.add_callback(bar)
    with bar, quiet():
        output = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    _finish(trainer, job)
    return output, trainer.state.log_history


def _finish(trainer: DistillationTrainer, job: Job) -> None:
    """Refuse a broken student; leave a whole one as it came, in eval mode."""
    trainer.refuse_broken_weights()
    if trainer.wants_rollouts() and not trainer.tally.rollouts:
        raise RunFailed("The method asks for the student's own sequences, but none was sampled.")
    trainer.accelerator.unwrap_model(job.student, keep_fp32_wrapper=False)
    job.student.config.use_cache = True  # Trainer switches it off for good; the product generates
    job.student.zero_grad(set_to_none=True)
    job.student.train(False)


def _evaluation(job: Job, arguments: TrainingArguments) -> Any:
    """The evaluation while training: the same scores as afterwards."""

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        totals = score_rows(
            model,
            job.teacher,
            job.held_out or (),
            job.pad_id,
            arguments.per_device_eval_batch_size,
            job.shared_vocabulary,
        )
        scalars = {
            "nll_per_token": totals.nll_per_token,
            "perplexity": totals.perplexity,
            "kl_to_teacher": totals.kl_per_token,
            "top1_agreement": totals.top1_agreement,
        }
        return {name: value for name, value in scalars.items() if value is not None}

    return evaluate


def _advise(trainer: DistillationTrainer, job: Job) -> None:
    steps = trainer.planned_steps()
    for line in advice(job.experiment, trainer.terms(), steps, trainer.args.get_warmup_steps(steps)):
        logger.warning(in_words(line))
    every = trainer.args.eval_steps
    if job.held_out is not None and trainer.args.eval_strategy == "steps" and every and every > steps:
        logger.warning(
            "eval_steps=%d, but the run has %d steps: eval_dataset is not looked at while training. Try "
            "eval_steps=%d, or evaluate(eval_dataset) afterwards.",
            every,
            steps,
            max(1, steps // 4),
        )


# ---- arguments


def _own_arguments(job: Job) -> TrainingArguments:
    """What the config says, as the runner would have it."""
    trainer = job.experiment.trainer
    if job.held_out is None:
        trainer.eval_strategy = "no"
    gpu = torch.accelerator.is_available()
    require(not trainer.fp16 or gpu, "fp16=True needs a GPU, and there is none: set fp16=False.")
    return training_arguments(job.experiment, Path(job.experiment.output_dir) / job.method.config.name)


REFUSED = {
    "auto_find_batch_size": "it changes the result with the machine. Halve per_device_train_batch_size and "
    "double gradient_accumulation_steps: the result stays the same",
    "label_smoothing_factor": "the loss is the method's own",
    "save_only_model": "nobody could go on from such a checkpoint: save_student saves the model alone",
}
"""Of a user's TrainingArguments: what cannot be done, and why."""


def check_arguments(given: Any) -> None:
    """Raise ArgumentError unless ``given`` is None or TrainingArguments."""
    require(
        given is None or isinstance(given, TrainingArguments),
        f"training_args is a {type(given).__name__}: give transformers.TrainingArguments(output_dir=…).",
    )


def _given_arguments(given: TrainingArguments, job: Job) -> TrainingArguments:
    """A copy of the user's own, with what the engine needs. The user's object stays as it is."""
    for name, why in REFUSED.items():
        value = getattr(given, name, None)
        require(not value, f"training_args: {name}={value}: {why}.")
    strategy = str(getattr(given.eval_strategy, "value", given.eval_strategy))
    require(
        strategy == "no" or job.held_out is not None,
        f'training_args: eval_strategy="{strategy}" without eval_dataset. Give train(train_dataset, '
        'eval_dataset, …), or eval_strategy="no".',
    )
    arguments = copy.copy(given)
    arguments.remove_unused_columns = False
    arguments.label_names = ["labels"]
    arguments.logging_nan_inf_filter = False
    arguments.dataloader_pin_memory &= torch.cuda.is_available()  # else a warning and nothing gained
    return arguments


# ---- checkpoints


def _checkpoint(root: Path, resume: str | Path | bool | None) -> Path | None:
    """The checkpoint to go on from; None after making room for a fresh training."""
    if resume is None or resume is False:
        _make_room(root)
        return None
    if resume is True:
        newest, problems = checkpoints.newest_valid(root)
        for problem in problems:
            logger.warning(problem)
        require(newest is not None, f"resume_from_checkpoint=True: {root} holds no whole checkpoint.")
        return newest
    folder = Path(resume)
    problems = checkpoints.verify(folder) if folder.is_dir() else ["there is no such folder"]
    require(not problems, f"resume_from_checkpoint={folder}: {'; '.join(problems)}.")
    return folder


def _make_room(root: Path) -> None:
    """An earlier training's checkpoints must not be taken for this one's: a finished one's go, an unfinished
    one's are set aside."""
    earlier = [folder for folder in checkpoints.published(root) if (folder / checkpoints.MANIFEST).exists()]
    if not earlier:
        return
    try:
        state = read_json(earlier[-1] / "trainer_state.json")
        finished = state["global_step"] >= state["max_steps"]
    except (OSError, ValueError, KeyError):
        finished = False
    if finished:
        for folder in earlier:
            shutil.rmtree(folder)
        return
    number = 1
    while (aside := root / f"unfinished-{number}").exists():
        number += 1
    aside.mkdir(parents=True)
    for folder in earlier:
        folder.rename(aside / folder.name)
    logger.warning(
        "An earlier training in %s did not come to its end: its checkpoints are now in %s. "
        "resume_from_checkpoint=%r goes on from there.",
        root,
        aside,
        str(aside / earlier[-1].name),
    )
