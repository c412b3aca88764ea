"""What the classes that train share: teacher, student and config on the engine that ``run.py`` drives."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

from distil.api.calls import checked
from distil.api.config import DistillationConfig
from distil.api.errors import ArgumentError, library_words, require
from distil.api.fields import idle_fields
from distil.api.inputs import (
    check_config,
    check_length,
    check_model,
    check_quantised,
    check_same_tokens,
    check_trainable,
    end_ids,
    filling_id,
    half_precision,
    local_tokenizer,
    quantisation,
    quantised_bits,
    shared_ids,
    token_ids,
)
from distil.api.past import Past
from distil.api.rows import raw_rows, read_rows, score_of
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
    from transformers.trainer_utils import TrainOutput

    from distil.api.rows import RawRows
    from distil.config.schema import ExperimentConfig, MethodConfig
    from distil.methods.base import Method

logger = logging.getLogger(__name__)

FREED = "the student was freed. Give load_student(folder) a saved one, or make a new {name}."


class BaseDistillation:
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

    Raises ValueError (``ArgumentError``), naming argument, value and way out, for what cannot be distilled.
    """

    method: ClassVar[str]
    """Name of the objective in the runner: ``method=…``."""

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

    @checked("")
    def __init__(
        self, teacher_model: Any, student_model: Any, config: Any, tokenizer: Any | None = None
    ) -> None:
        if isinstance(teacher_model, DistillationConfig):
            config, teacher_model, student_model = teacher_model, student_model, config
        check_config(config)
        check_model(teacher_model, "teacher_model")
        check_model(student_model, "student_model")
        require(
            teacher_model is not student_model,
            "teacher_model and student_model are one object, which would learn from itself as it changes. "
            "Load it twice.",
        )
        require(
            tokenizer is None or callable(tokenizer),
            f"tokenizer is a {type(tokenizer).__name__}: give AutoTokenizer.from_pretrained(…).",
        )
        self.config: DistillationConfig = config
        self.teacher: PreTrainedModel = teacher_model
        """The teacher, in eval mode."""
        self.tokenizer: PreTrainedTokenizerBase | None = tokenizer
        self.history: list[dict[str, float]] = []
        """What the last training logged, one entry a logging step or evaluation, with its ``step``."""
        self._past = Past()
        self._columns: list[str] = ["input_ids"]
        self._student: PreTrainedModel | None = None
        with library_words(config.peft_type):
            check_same_tokens(teacher_model, student_model)
            self._adopt(student_model)

    @property
    def student(self) -> PreTrainedModel:
        """The student: with ``use_peft`` PEFT's wrapper of it. Raises ValueError after ``free_student``."""
        if self._student is None or next(self._student.parameters()).is_meta:
            raise ArgumentError(FREED.format(name=type(self).__name__))
        return self._student

    @checked("train")
    def train(
        self,
        train_dataset: Any,
        eval_dataset: Any = None,
        training_args: TrainingArguments | None = None,
        *,
        resume_from_checkpoint: str | Path | bool | None = None,
    ) -> TrainOutput:
        """Train the student on ``train_dataset``.

        Args:
            train_dataset: rows of ``input_ids`` and ``attention_mask`` (with ``labels``, their -100 are not
                scored; without, every token is), or rows of text where a tokenizer is known: ``text``,
                ``prompt`` and ``response``, ``messages``. A ``datasets.Dataset``, an ``IterableDataset``
                (read once, to its end), a torch data set or a list of dicts. GKD needs ``prompt_input_ids``.
            eval_dataset: rows to evaluate on every ``eval_steps``; None: no evaluation while training.
            training_args: your own ``TrainingArguments``, in place of what the config says about training
                (``report_to`` included).
            resume_from_checkpoint: a checkpoint folder, or True for the newest whole one of ``output_dir``.

        Returns Trainer's ``TrainOutput``. The student is in eval mode afterwards. Raises ValueError for bad
        input, and ``distil.types.RunFailed`` where a loss or a weight is no number.
        """
        from distil.api.training import Job, check_arguments, train

        check_arguments(training_args)
        self.config.validate()
        with library_words(self.config.peft_type):
            student = self.student
            check_trainable(student)
            if idle := idle_fields(self.config):
                logger.warning("use_peft=False: all of the student is trained, and %s waits.", idle)
            raw = raw_rows(train_dataset, "train_dataset", _limit(train_dataset, training_args))
            self._columns = raw.columns
            method = self._method()
            rows = self._rows(raw, wants_prompts=method.wants_rollouts)
            held_out = None if eval_dataset is None else self._rows(raw_rows(eval_dataset, "eval_dataset"))
            job = Job(
                method=method,
                student=student,
                teacher=self.teacher,
                rows=rows,
                held_out=held_out,
                experiment=self.experiment(),
                stops=end_ids(self.tokenizer, self.teacher, self.student),
                pad_id=filling_id(self.tokenizer),
                shared_vocabulary=shared_ids(self.tokenizer, self.teacher, self.student),
            )
            before = self._past
            self._past = before.trains(
                resumed=bool(resume_from_checkpoint),
                own_arguments=training_args is not None,
                bits=self._bits_untold(student),
            )
            try:
                output, self.history = train(job, training_args, resume_from_checkpoint)
            except InputError:  # nothing was trained
                self._past = before
                raise
        return output

    @checked("evaluate")
    def evaluate(self, eval_dataset: Any) -> dict[str, float]:
        """Scores of the student on ``eval_dataset`` (as in ``train``), over all scored tokens together.

        Returns ``eval_loss`` (nats a token), ``perplexity`` = exp(eval_loss), ``kl_to_teacher`` =
        KL(teacher || student) (nats a token, over the ids that both share), ``top1_agreement`` (share of the
        tokens) and ``eval_tokens``. Random state and modes are as before afterwards.
        """
        from distil.api.students import place
        from distil.evaluation import score_rows

        with library_words(self.config.peft_type):
            student = self.student
            place(self.teacher, student)
            rows = self._rows(raw_rows(eval_dataset, "eval_dataset"))
            totals = score_rows(
                student,
                self.teacher,
                rows,
                filling_id(self.tokenizer),
                self.config.per_device_eval_batch_size,
                shared_ids(self.tokenizer, self.teacher, self.student),
            )
        scores = {
            "eval_loss": totals.nll_per_token,
            "perplexity": totals.perplexity,
            "kl_to_teacher": totals.kl_per_token,
            "top1_agreement": totals.top1_agreement,
            "eval_tokens": float(totals.tokens),
        }
        return {name: value for name, value in scores.items() if value is not None}

    @checked("save_student")
    def save_student(self, output_dir: str | Path) -> None:
        """Save the student (of an adapted one the adapter alone), tokenizer, config and a model card.

        ``AutoModelForCausalLM.from_pretrained(output_dir)`` loads it, or ``load_student``.
        """
        from distil.api.card import library_card
        from distil.api.experiment import command_of
        from distil.api.saved import base_recipe, save

        with library_words(self.config.peft_type):
            tokenizer = self.tokenizer or self._local_tokenizer()
            run, base, student = self.experiment("DATA"), None, self.student
            if self._base_print:
                base = base_recipe(
                    asdict(run.model.student),
                    run.peft.name,
                    self._base_name,
                    self._base_print,
                    run.seed,
                    quantisation(student),
                    (self.method, self.config.teacher_model_name),
                )
            names = self.config.teacher_model_name, self.config.student_model_name
            card = library_card(type(self).__name__, *names, self._past, command_of(run), base)
            save(Path(output_dir), student, tokenizer, self.config, card, base)

    @checked("load_student")
    def load_student(self, model_path: str | Path) -> PreTrainedModel:
        """Take the student of a folder: one that ``save_student`` wrote, ``student/`` of a run, or a model.

        Returns it. An adapter goes onto the base that is here, which must be the one it was trained on.
        P-tuning and a projected prefix save no network: what comes back speaks, and is not trained further.
        Raises ValueError for a folder that holds no student, or one that does not fit.
        """
        from distil.adapters.existing import ADAPTER_CONFIG
        from distil.api.saved import load
        from distil.api.students import adapter_of, place

        folder = Path(model_path).expanduser()
        with library_words(self.config.peft_type):
            resumable = adapter_of(self.experiment()).no_resume is None
            model = load(folder, self._student, self._base_name, self._base_print, resumable=resumable)
            adapter = (folder / ADAPTER_CONFIG).is_file()
            if adapter:
                self._student = model
                model.train(False)
                place(self.teacher, model)
            else:
                check_same_tokens(self.teacher, model)
                self._adopt(model)
                if self._base_print:
                    logger.warning(
                        "%s is a whole model: it is the base now, and a new adapter goes onto it.", folder
                    )
            self._past = self._past.loaded(folder, adapter=adapter)
        return self.student

    def free_student(self) -> None:
        """Let go of the student's memory; ``load_student`` brings one back."""
        self._student = None

    def experiment(self, data: str | Path | None = None) -> ExperimentConfig:
        """The typed config of the runner that does the same on ``data``, models as they were loaded here."""
        return self._experiment_of(self._student, data)

    def command(self, data: str | Path | None = None) -> str:
        """The command line that trains the same student, to the bit where models and rows are the same.

        ``data``: see ``DistillationConfig.command``; rows are scored as those that ``train`` saw last.
        """
        from distil.api.experiment import command_of

        for untold in self._past.untold:
            logger.warning("The command does not say all of the last training: %s.", untold)
        return command_of(self.experiment("DATA" if data is None else data))

    # ---- parts

    _base_name: str
    """Where the student came from."""
    _base_print: str
    """What tells the base under an adapter from others; empty: all of the student is trained."""

    def _adopt(self, student: PreTrainedModel) -> None:
        """Take ``student`` as the one to train, an adapter on it where the config asks for one."""
        from distil.api.students import adapted, place

        check_quantised(student, self.config)
        self._base_name = str(student.name_or_path) or self.config.student_model_name
        tokenizer = self.tokenizer
        if tokenizer is None and self.config.prompt_tuning_init == "TEXT":
            tokenizer = self._local_tokenizer()
        self._student, self._base_print = adapted(student, self._experiment_of(student), tokenizer)
        place(self.teacher, self._student)
        shared_ids(self.tokenizer, self.teacher, self._student)

    def _experiment_of(
        self, student: PreTrainedModel | None, data: str | Path | None = None
    ) -> ExperimentConfig:
        from distil.api.experiment import to_experiment

        return to_experiment(
            self.config,
            self.method,
            data=data,
            score=score_of(self._columns),
            models={
                "teacher": half_precision(self.teacher),
                "student": half_precision(student) | self._past.keys,
            },
            peft=quantisation(student) if self.config.use_peft else {},
        )

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

    def _bits_untold(self, student: PreTrainedModel) -> int | None:
        """In how many bits the base is held, where no key of a run would say so."""
        return None if self.config.peft_type.lower() == "qlora" else quantised_bits(student)

    def _local_tokenizer(self) -> PreTrainedTokenizerBase | None:
        return local_tokenizer(self._base_name, self.config.student_model_name)

    def _method(self) -> Method[MethodConfig]:
        from distil.methods.base import METHODS

        return METHODS.get(self.method).factory(self.experiment().method)


def _limit(dataset: Any, arguments: TrainingArguments | None) -> int | None:
    """How many rows of a stream ``max_steps`` see; None: a set of known size, or no such limit."""
    if arguments is None or arguments.max_steps <= 0 or hasattr(dataset, "__len__"):
        return None
    return int(arguments.max_steps * arguments.train_batch_size * arguments.gradient_accumulation_steps)
