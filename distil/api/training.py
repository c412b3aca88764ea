"""One training of the library: the engine's trainer, fed by what the caller gave."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.trainer_callback import EarlyStoppingCallback, TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils.import_utils import is_in_notebook

from distil.api.advise import advise
from distil.api.errors import require
from distil.api.inputs import broken_weights
from distil.api.resuming import checkpoint_of, make_room, rows_print, warn_of_nothing_left
from distil.api.scores import LESS_IS_BETTER, scores_of
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.engine.anatomy import has_prefix, is_adapted
from distil.engine.borrowed import borrowed
from distil.engine.callbacks import ProgressBar
from distil.engine.checkpoint_reading import numbers_only
from distil.engine.evaluation import score_rows
from distil.engine.saving import noted
from distil.engine.trainer import DistillationTrainer, Evaluate
from distil.methods.base import Method
from distil.processes import ranks
from distil.system.files import check_writable
from distil.system.progress import Progress
from distil.system.quiet import quiet_transformers
from distil.training import training_arguments
from distil.types import RunFailed


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
    callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = ()
    fresh: bool = False
    """Whether the student's weights are random yet."""


def train(
    job: Job,
    given: TrainingArguments | None,
    resume: str | Path | bool | None,
    ended: Callable[[TrainerState], None],
) -> TrainOutput:
    """Train ``job.student`` in place. ``ended`` hears how far it came, wherever it stops."""
    in_parts = ranks.sharded() or bool(given and (given.fsdp or given.deepspeed))
    require(
        not in_parts, "Models cut up by FSDP or DeepSpeed are trained by run.py alone: see conf/accelerate."
    )
    arguments = _own_arguments(job) if given is None else _given_arguments(given, job)
    _check_early_stopping(job, arguments)
    check_writable(arguments.output_dir or ".")
    root = Path(arguments.output_dir or ".")
    purpose = asdict(job.method.config) | noted(arguments) | {"rows": rows_print(job.rows)}
    checkpoint = checkpoint_of(root, resume, purpose, adapted=is_adapted(job.student))
    set_seed(arguments.seed)
    with borrowed(job.student):
        trainer = _trainer(job, arguments)
        trainer.purpose = purpose
        make_room(root, checkpoint)
        advise(trainer, job.experiment, fresh=job.fresh, evaluates=job.held_out is not None)
        progress = Progress(Console(stderr=True, quiet=not ranks.is_main()))
        if checkpoint is not None:
            progress.say(f"Going on from {checkpoint}.")
        bar = ProgressBar(progress, trainer.tokens_seen)
        if arguments.disable_tqdm:
            trainer.add_callback(bar)
        going_on = None if checkpoint is None else str(checkpoint)
        try:
            with bar, quiet_transformers(), numbers_only(going_on):
                output = trainer.train(resume_from_checkpoint=going_on)
        except RunFailed as error:
            began = {} if trainer.state.global_step else {"student_model": job.student}
            raise RunFailed(
                f"{error} {broken_weights(began | {'teacher_model': job.teacher})}".rstrip()
            ) from error
        finally:
            ended(trainer.state)
        trainer.refuse_broken_student()
    if checkpoint is not None:
        warn_of_nothing_left(checkpoint, trainer.state.global_step)
    return output


def _check_early_stopping(job: Job, arguments: TrainingArguments) -> None:
    """Raise ArgumentError where transformers' callback would fail once training begins."""
    for callback in job.callbacks:
        kind = callback if isinstance(callback, type) else type(callback)
        watches = arguments.metric_for_best_model is not None and arguments.eval_strategy != "no"
        require(
            not issubclass(kind, EarlyStoppingCallback) or (watches and job.held_out is not None),
            f"callbacks: {kind.__name__} watches an evaluation while training. Give eval_dataset, and "
            'training_args=TrainingArguments(…, eval_strategy="steps", metric_for_best_model="eval_loss"): a '
            "DistillationConfig has no such field.",
        )


def _trainer(job: Job, arguments: TrainingArguments) -> DistillationTrainer:
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
    for callback in job.callbacks:
        trainer.add_callback(callback)
    return trainer


def _evaluation(job: Job, arguments: TrainingArguments) -> Evaluate:
    """The evaluation while training, in its precision: ``evaluate`` scores in that of the weights."""

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        totals = score_rows(
            model,
            job.teacher,
            job.held_out or (),
            job.pad_id,
            arguments.per_device_eval_batch_size,
            job.shared_vocabulary,
        )
        return scores_of(totals, "nll_per_token")

    return evaluate


# ---- arguments


def _own_arguments(job: Job) -> TrainingArguments:
    """What the config says, as the runner would have it."""
    trainer = job.experiment.trainer
    if job.held_out is None:
        trainer.eval_strategy = "no"
    gpu = torch.accelerator.is_available()
    require(not trainer.fp16 or gpu, "fp16=True needs a GPU, and there is none: set fp16=False.")
    arguments = training_arguments(job.experiment, Path(job.experiment.output_dir) / job.method.config.name)
    arguments.disable_tqdm = not is_in_notebook()  # where no bar of a terminal is seen, Trainer shows a table
    return arguments


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


def check_callbacks(given: Any) -> Sequence[TrainerCallback | type[TrainerCallback]]:
    """``given`` as a sequence. Raises ArgumentError unless it is one of TrainerCallbacks, or None."""
    if given is None:
        return ()
    kind = given.__name__ if isinstance(given, type) else type(given).__name__
    require(
        isinstance(given, Sequence) and not isinstance(given, str),
        f"callbacks is a {kind}: give a list of transformers.TrainerCallback, callbacks=[…].",
    )
    for index, one in enumerate(given):
        is_one = isinstance(one, TrainerCallback) or (
            isinstance(one, type) and issubclass(one, TrainerCallback)
        )
        require(
            is_one,
            f"callbacks[{index}] is a {type(one).__name__}: give an object of a class that derives from "
            "transformers.TrainerCallback.",
        )
    return tuple(given)


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
    best = given.metric_for_best_model or ""
    require(
        strategy == "no" or not given.greater_is_better or best.removeprefix("eval_") not in LESS_IS_BETTER,
        f'training_args: metric_for_best_model="{best}" with greater_is_better=True, as transformers has it '
        "where nothing is said: the worst student would be the best. Give greater_is_better=False.",
    )
    checkpointing = any(getattr(given, f"{name}_checkpointing", None) for name in ("gradient", "activation"))
    require(
        not checkpointing or not has_prefix(job.student),
        'training_args: gradient_checkpointing=True with peft_type="prefix": it does not work in PEFT. Set '
        "it to False: an adapter needs little memory for gradients anyway.",
    )
    arguments = copy.copy(given)
    arguments.remove_unused_columns = False
    arguments.label_names = ["labels"]
    arguments.logging_nan_inf_filter = False
    arguments.dataloader_pin_memory &= torch.cuda.is_available()  # else a warning and nothing gained
    return arguments
