"""What the classes that train share: teacher, student and config on the engine that ``run.py`` drives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from distil.api.calls import checked
from distil.api.config import DistillationConfig
from distil.api.errors import library_words, require
from distil.api.inputs import (
    check_apart,
    check_config,
    check_length,
    check_model,
    check_trainable,
    end_ids,
    filling_id,
    shared_ids,
    token_ids,
    warn_of_no_numbers,
    warn_of_order,
)
from distil.api.keeper import StudentKeeper
from distil.api.padding import without_padding
from distil.api.rows import raw_rows, read_rows, score_of, shape_of
from distil.api.scores import scores_of
from distil.api.tokenizers import has_chat_template
from distil.data.row_notes import LOOKED_AT, alpaca_note, glued_note

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
    from transformers.trainer_callback import TrainerCallback, TrainerState
    from transformers.trainer_utils import TrainOutput

    from distil.api.rows import RawRows
    from distil.api.training import Job
    from distil.config.schema import MethodConfig
    from distil.methods.base import Method

logger = logging.getLogger(__name__)

OWN_ARGUMENTS = "its TrainingArguments were the caller's own"
OWN_CALLBACKS = "its callbacks were the caller's own"


class BaseDistillation(StudentKeeper):
    """A teacher, a student and a config; ``train``, ``evaluate``, ``save_student``, ``load_student``.

    Both orders are understood: ``(teacher, student, config)`` and ``(config, teacher, student, tokenizer)``.

    Args:
        teacher_model: a causal language model. It is put into eval mode and moved to the student's device;
            its weights are left alone.
        student_model: the model that is trained, in place. With ``config.use_peft`` an adapter is put on it
            here: see ``student``.
        config: a ``DistillationConfig``.
        tokenizer: needed for data sets of text; saved beside the student. None: looked for on this machine
            under the student's name when text comes.

    Raises:
        ArgumentError: a ValueError that names argument, value and way out, for what cannot be distilled: a
            model that is no causal language model, tokenizers that differ, an adapter that does not fit.
    """

    @overload
    def __init__(
        self,
        teacher_model: PreTrainedModel,
        student_model: PreTrainedModel,
        config: DistillationConfig,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        teacher_model: DistillationConfig,
        student_model: PreTrainedModel,
        config: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None: ...

    @checked(
        "", {field.name: f"DistillationConfig(…, {field.name}=…)" for field in fields(DistillationConfig)}
    )
    def __init__(
        self, teacher_model: Any, student_model: Any, config: Any, tokenizer: Any | None = None
    ) -> None:
        if isinstance(teacher_model, DistillationConfig):
            config, teacher_model, student_model = teacher_model, student_model, config
        check_config(config)
        check_model(teacher_model, "teacher_model")
        check_model(student_model, "student_model")
        check_apart(teacher_model, student_model)
        require(
            tokenizer is None or callable(tokenizer),
            f"tokenizer is a {type(tokenizer).__name__}: give AutoTokenizer.from_pretrained(…).",
        )
        warn_of_order(teacher_model, student_model)
        self.history: list[dict[str, float]] = []
        """What the last training logged, one entry a logging step or evaluation, with its ``step``."""
        super().__init__(config, teacher_model, student_model, tokenizer)

    @checked("train", {name: f"TrainingArguments({name}=…)" for name in ("output_dir", "report_to")})
    def train(
        self,
        train_dataset: Any,
        eval_dataset: Any = None,
        training_args: TrainingArguments | None = None,
        *,
        resume_from_checkpoint: str | Path | bool | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
    ) -> TrainOutput:
        """Train the student on ``train_dataset``.

        Args:
            train_dataset: rows of ``input_ids`` and ``attention_mask`` (all tokens are scored; with
                ``labels`` those alone that are not -100), or rows of text where a tokenizer is known:
                ``text``, ``prompt`` and ``response``, ``messages``. A ``datasets.Dataset``, an
                ``IterableDataset`` (read once, to its end), a torch data set or a list of dicts. GKD needs
                ``prompt_input_ids``.
            eval_dataset: rows to evaluate on every ``eval_steps``; None: no evaluation while training.
            training_args: your own ``TrainingArguments``, in place of what the config says about training
                (``report_to`` included).
            resume_from_checkpoint: a checkpoint folder, or True for the newest whole one of ``output_dir``.
                One of another method is refused.
            callbacks: your own ``transformers.TrainerCallback`` objects, or classes of such, called as
                ``Trainer`` calls them.

        Returns:
            Trainer's ``TrainOutput``: ``global_step``, ``training_loss`` (nats a token) and ``metrics``. The
            student is in eval mode afterwards.

        Raises:
            ArgumentError: for rows or arguments that cannot be trained on; nothing was trained.
            RunFailed: where a loss or a weight is no number.
        """
        from distil.api.experiment import idle_fields
        from distil.api.training import check_arguments, check_callbacks, train

        check_arguments(training_args)
        own = check_callbacks(callbacks)
        self.config.validate()
        with library_words(self.config.peft_type):
            student = self.student
            check_trainable(student)
            if idle := idle_fields(self.config):
                logger.warning("%s, so nothing reads %s.", _what_is_trained(self.config), idle)
            limit = _limit(train_dataset, training_args)
            raw = without_padding(raw_rows(train_dataset, "train_dataset", limit), self.tokenizer)
            job = self._job(student, raw, eval_dataset, own)
            shape = shape_of(raw)
            chat = has_chat_template(self.tokenizer)
            notes = [alpaca_note(shape, chat, keys=False)]
            if self.tokenizer is not None:
                notes.append(glued_note(shape, chat, job.rows[:LOOKED_AT], self.tokenizer, keys=False))
            for note in filter(None, notes):
                logger.warning("train_dataset: %s", note)
            untold = self._untold(student)
            untold += [OWN_ARGUMENTS] * (training_args is not None) + [OWN_CALLBACKS] * bool(own)
            untold += sorted(raw.untold)
            past = self._past.trains(self.config, resumed=bool(resume_from_checkpoint), untold=untold)

            def ended(state: TrainerState) -> None:
                if state.global_step:  # else nothing was trained
                    self.history, self._shape = state.log_history, shape
                    self._score = score_of(raw.columns)
                    self._past = past.ended(state.global_step, state.max_steps)

            return train(job, training_args, resume_from_checkpoint, ended)

    @checked("evaluate")
    def evaluate(self, eval_dataset: Any) -> dict[str, float]:
        """Scores of the student, over all scored tokens together. Random state and modes are left as before.

        Args:
            eval_dataset: rows as ``train`` takes them, cut at ``max_length`` as there (how many is logged):
                ``compute_perplexity`` cuts none.

        Returns:
            ``eval_loss`` (nats a token), ``perplexity`` = exp(eval_loss), ``kl_to_teacher`` = KL(teacher ||
            student) (nats a token, over the ids that both share), ``top1_agreement`` (share of the tokens, 0
            to 1) and ``eval_tokens`` (how many were scored).

        Raises:
            ArgumentError: for rows that cannot be scored.
        """
        from distil.api.students import place
        from distil.engine.evaluation import score_rows

        with library_words(self.config.peft_type):
            student = self.student
            place(self.teacher, student)
            rows = self._rows(self._held_out(eval_dataset))
            totals = score_rows(
                student,
                self.teacher,
                rows,
                filling_id(self.tokenizer),
                self.config.per_device_eval_batch_size,
                shared_ids(self.tokenizer, self.teacher, self.student),
            )
        scores = scores_of(totals) | {"eval_tokens": float(totals.tokens)}
        warn_of_no_numbers(scores, {"student_model": student, "teacher_model": self.teacher})
        return scores

    # ---- parts

    def _job(
        self,
        student: PreTrainedModel,
        raw: RawRows,
        eval_dataset: Any,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]],
    ) -> Job:
        """What ``train`` trains, and on what: rows read and checked, ids and method settled."""
        from distil.api.training import Job

        method = self._method()
        rows = self._rows(raw, wants_prompts=method.wants_rollouts)
        held_out = None if eval_dataset is None else self._rows(self._held_out(eval_dataset))
        return Job(
            method=method,
            student=student,
            teacher=self.teacher,
            rows=rows,
            held_out=held_out,
            experiment=self._experiment_of(student, self.config),
            stops=end_ids(self.tokenizer, self.teacher, self.student),
            pad_id=filling_id(self.tokenizer),
            shared_vocabulary=shared_ids(self.tokenizer, self.teacher, self.student),
            callbacks=callbacks,
            fresh=not (self._past.came or self._past.trained or student.name_or_path),
        )

    def _held_out(self, dataset: Any) -> RawRows:
        return without_padding(raw_rows(dataset, "eval_dataset"), self.tokenizer)

    def _rows(self, raw: RawRows, *, wants_prompts: bool = False) -> list[dict[str, Any]]:
        """``raw`` as rows that fit both models."""
        if self.tokenizer is None and "input_ids" not in raw.columns:
            self.tokenizer = self._local_tokenizer()
        length = self.config.max_length
        rows = read_rows(
            raw,
            max_length=length,
            tokenizer=self.tokenizer,
            ids=token_ids(self.teacher, self.student),
            wants_prompts=wants_prompts,
        )
        check_length(rows, raw.name, length, self.student, self.teacher)
        return rows

    def _method(self) -> Method[MethodConfig]:
        from distil.methods.base import method_of

        return method_of(self._experiment_of(None, self.config).method)


def _what_is_trained(config: DistillationConfig) -> str:
    """In the words of the config."""
    whole = "use_peft=False: all of the student is trained"
    return f"An adapter of peft_type={config.peft_type} is trained" if config.use_peft else whole


def _limit(dataset: Any, arguments: TrainingArguments | None) -> int | None:
    """How many rows of a stream ``max_steps`` see; None: a set of known size, or no such limit."""
    if arguments is None or arguments.max_steps <= 0 or hasattr(dataset, "__len__"):
        return None
    step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return int(arguments.max_steps * step)
