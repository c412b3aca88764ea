"""The student in hand: adapted, saved, taken up again, freed; and the command line that trains it."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from distil.api.calls import check_path, checked
from distil.api.config import DistillationConfig
from distil.api.errors import ArgumentError, in_words, library_words
from distil.api.inputs import (
    check_quantised,
    half_precision,
    quantisation,
    shared_ids,
)
from distil.api.past import Past
from distil.api.tokenizers import (
    check_same_tokens,
    has_chat_template,
    local_tokenizer,
    warn_of_endings,
)
from distil.api.untold import untold_models
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distil.config.schema import ExperimentConfig
    from distil.data.columns import Shape

logger = logging.getLogger(__name__)

FREED = "the student was freed. Give load_student(folder) a saved one, or make a new {name}."
FREED_ADAPTED = "the student was freed, and its base with it. Make a new {name} of the base model; a saved \
adapter comes back with load_student(folder)."


class StudentKeeper:
    """What a distillation does with its student besides training it."""

    method: ClassVar[str]
    """Name of the objective in the runner: ``method=…``."""
    config: DistillationConfig
    """What it was made with."""
    teacher: PreTrainedModel
    """The teacher, in eval mode."""
    tokenizer: PreTrainedTokenizerBase | None
    """The one that was given, or was found beside the student when text came."""

    def __init__(
        self,
        config: DistillationConfig,
        teacher: PreTrainedModel,
        student: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
    ) -> None:
        self.config, self.teacher, self.tokenizer = config, teacher, tokenizer
        self._past = Past()
        self._score = "response"
        self._shape: Shape | None = None
        self._student: PreTrainedModel | None = None
        with library_words(config.peft_type):
            check_same_tokens(teacher, student)
            self._adopt(student)
            warn_of_endings(teacher, student)

    @property
    def student(self) -> PreTrainedModel:
        """The student: with ``use_peft`` PEFT's wrapper of it. Raises ValueError after ``free_student``."""
        if (student := self._held()) is None:
            words = FREED_ADAPTED if self.config.use_peft else FREED
            raise ArgumentError(words.format(name=type(self).__name__))
        return student

    def _held(self) -> PreTrainedModel | None:
        """The student, unless it was freed: by ``free_student``, or to the meta device."""
        held = self._student
        return None if held is None or next(held.parameters()).is_meta else held

    @checked("save_student")
    def save_student(self, output_dir: str | Path) -> None:
        """Save the student (of an adapted one the adapter alone), tokenizer, config and a model card.

        ``AutoModelForCausalLM.from_pretrained(output_dir)`` loads it, or ``load_student``. The card says how
        the student was made. ``distil merge`` makes one plain model of an adapter and its base.

        Args:
            output_dir: a folder, made where it is absent; files of an earlier student there are replaced. A
                README or a tokenizer that was there before stays, the card is ``distillation_card.md`` then.

        Raises:
            ArgumentError: where nothing can be written there, the folder holds a model that ``save_student``
                did not write, or the student was freed. The student stays in hand.
        """
        from distil.api.experiment import command_of
        from distil.api.saved import base_recipe, own_adapter, save
        from distil.cards.library import asking, library_card
        from distil.data.columns import Kind

        folder = check_path("output_dir", output_dir)
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
            past = self._past.saved(folder, self._base_name)
            config = self._past.config or self.config
            names = config.teacher_model_name, config.student_model_name
            on = base or own_adapter(student)
            shape = None if self._shape is None or self._shape.kind is Kind.TOKENS else self._shape
            asked = None if shape is None else asking(shape, chat=has_chat_template(tokenizer))
            card = library_card(type(self).__name__, *names, past, command_of(run), on, asked)
            save(folder, student, tokenizer, config, card, base, shape)
            self._past = past

    @checked("load_student")
    def load_student(self, model_path: str | Path) -> PreTrainedModel:
        """Take the student of a folder, in place of the one that is here.

        An adapter goes onto the base that is here, which must be the one it was trained on. A whole model,
        where the config asks for an adapter, becomes the base of a new one; it comes in the precision of the
        student that is here, or as saved where that was freed. P-tuning and a projected prefix save no
        network: what comes back speaks, and is not trained further. ``command`` begins from this folder once
        the student was trained on.

        Args:
            model_path: what ``save_student`` wrote, ``student/`` of a run, or any folder of ``transformers``.

        Returns:
            The student, in eval mode.

        Raises:
            ArgumentError: for a folder that holds no student, or one that does not fit.
        """
        from distil.adapters.base import adapter_of
        from distil.adapters.existing import ADAPTER_CONFIG
        from distil.api.saved import load
        from distil.api.students import place
        from distil.cards.library import saved_shape

        folder = check_path("model_path", model_path)
        with library_words(self.config.peft_type):
            resumable = adapter_of(self._experiment_of(None, self.config).peft).no_resume is None
            model = load(folder, self._held(), self._base_name, self._base_print, resumable=resumable)
            adapter = (folder / ADAPTER_CONFIG).is_file()
            if adapter:
                self._student = model
                model.train(False)
                place(self.teacher, model)
            else:
                try:
                    check_same_tokens(self.teacher, model)
                    self._adopt(model)
                except InputError as error:
                    said = in_words(str(error), self.config.peft_type)
                    raise ArgumentError(f"model_path={folder}: {said}") from error
                if self._base_print:
                    logger.warning(
                        "%s is a whole model: it is the base now, and a new adapter goes onto it.", folder
                    )
            self._past = self._past.loaded(folder, adapter=adapter)
            self._shape = saved_shape(folder)
        return self.student

    def free_student(self) -> None:
        """Let go of the student's memory; ``load_student`` brings a whole one back.

        An adapter needs its base: make a new object of that.
        """
        self._student = None

    def experiment(self, data: str | Path | None = None) -> ExperimentConfig:
        """The typed config of the runner that does the same, models as they were loaded here.

        Args:
            data: where the rows are: see ``command``.

        Returns:
            What ``python run.py`` would compose.

        Raises:
            ArgumentError: for a value of the config that was set out of range.
        """
        return self._experiment_of(self._student, self._past.config or self.config, data)

    def command(self, data: str | Path | None = None) -> str:
        """The command line that trains the same student, to the bit where models and rows are the same.

        It says the last training, from where the student began then; before any, the one that would begin
        now. Rows are scored as those that ``train`` saw last; before any, their responses are. What no
        command line says (a caller's own ``TrainingArguments``, a model that was cut or changed in memory)
        is logged as a warning.

        Args:
            data: a folder of ``save_to_disk`` with splits ``train``, ``validation`` and ``test``, or a hub
                name. None prints DATA, and says in a warning what that stands for.

        Returns:
            One line for a shell, quoted for it and for Hydra.

        Raises:
            ArgumentError: for a value of the config that was set out of range.
        """
        from distil.api.experiment import command_of, named_rows

        untold = list(self._past.untold)
        if self._past.config is None and (student := self._held()) is not None:
            untold = self._untold(student)
        for each in untold:
            logger.warning("The command does not say all of the training: %s.", each)
        return command_of(self.experiment(named_rows(data)))

    # ---- parts

    _base_name: str
    """Where the student came from."""
    _base_print: str
    """What tells the base under an adapter from others; empty: all of the student is trained."""

    def _adopt(self, student: PreTrainedModel) -> None:
        """Take ``student`` as the one to train, an adapter on it where the config asks for one."""
        from distil.api.students import adapted, place

        # All that may refuse it comes before an adapter is put on: a refused model stays as it was given.
        check_quantised(student, self.config)
        shared_ids(self.tokenizer, self.teacher, student)
        place(self.teacher, student)
        name = str(student.name_or_path) or self.config.student_model_name
        tokenizer = self.tokenizer
        if tokenizer is None and self.config.prompt_tuning_init == "TEXT":
            tokenizer = local_tokenizer(name, self.config.student_model_name)
        made, told = adapted(student, self._experiment_of(student, self.config), tokenizer)
        self._student, self._base_name, self._base_print = made, name, told

    def _experiment_of(
        self, student: PreTrainedModel | None, config: DistillationConfig, data: str | Path | None = None
    ) -> ExperimentConfig:
        from distil.api.experiment import to_experiment

        return to_experiment(
            config,
            self.method,
            data=data,
            score=self._score,
            models={
                "teacher": half_precision(self.teacher),
                "student": half_precision(student) | self._past.keys,
            },
            peft=quantisation(student) if config.use_peft else {},
        )

    def _untold(self, student: PreTrainedModel) -> list[str]:
        """What no command line says of the models that a training would begin with now."""
        past = self._past
        return untold_models(self.config, self.teacher, student, past.came, trained=past.trained)

    def _local_tokenizer(self) -> PreTrainedTokenizerBase | None:
        return local_tokenizer(self._base_name, self.config.student_model_name)
