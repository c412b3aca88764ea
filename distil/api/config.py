"""``DistillationConfig``: everything about one distillation in one flat dataclass.

One long file: editors and the site read a field's meaning right under it, in the class itself.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distil.api.calls import CallError, bound, check_path
from distil.api.errors import ArgumentError, library_words, require
from distil.api.fields import (
    ALIASES,
    LEFT_OPEN,
    LEFT_TO_METHOD,
    PARTNERS,
    SHARES,
    check_adapter_field,
    check_left,
    check_share,
    no_field,
    rest,
    same,
    typed,
)
from distil.api.unset import Unset, plain, unset
from distil.system.files import write_text

if TYPE_CHECKING:
    from distil.config.schema import ExperimentConfig


def _noting_what_is_given(kind: type[Any]) -> type[Any]:
    """Class decorator: ``__init__`` marks what was not given as such, and refuses what does not fit.

    It takes ``left_to_method`` too, as ``to_dict`` and ``repr`` give it.
    """
    make = kind.__init__
    signature = inspect.signature(make)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}

    @wraps(make)
    def init(self: Any, *positional: Any, **named: Any) -> None:
        left = check_left(named.pop(LEFT_TO_METHOD, ()))
        for name in named:
            if name not in signature.parameters:
                raise CallError(no_field(name, [one.name for one in fields(kind)]))
        given = bound(kind.__name__, signature, (self, *positional), named)
        if "use_peft" not in given:
            for name in given:
                check_adapter_field(name, given[name], f" (or use_peft=False, and {name} waits)")
        for name, value in given.items():
            if name in PARTNERS and PARTNERS[name][0] not in given:
                given[name] = plain(value)  # alone it counts, though another config has it as a default
        given = {name: value for name, value in given.items() if name not in left or value != defaults[name]}
        open_ = {name: unset(defaults[name]) for name in LEFT_OPEN if name not in given}
        make(self, **given, **open_)

    kind.__init__ = init
    return kind


@_noting_what_is_given
@dataclass(eq=False, repr=False)
class DistillationConfig:
    """All settings of a distillation: models, objective, training, adapter.

    ``teacher_model_name`` and ``student_model_name`` (a hub name or a folder) say where the two models came
    from: ``command`` names them; the objects that are trained are given to ``KnowledgeDistillation``.

    Raises:
        ArgumentError: a ValueError that names field, value and way out: for a value out of range, a name that
            no field has, ``epochs`` and ``num_train_epochs`` (or ``batch_size`` and
            ``per_device_train_batch_size``) that differ, ``lambda_gkd`` and ``beta_gkd`` that do not add up
            to 1, and a field of an adapter where ``use_peft`` is not given.
    """

    teacher_model_name: str
    """Hub name or folder."""
    student_model_name: str
    """Hub name or folder; teacher and student must read the same token ids."""

    temperature: float = 2.0
    """Softens both distributions of every divergence. Not set, KD and RevKD take 2 and GKD takes 1."""
    kd_loss_weight: float = 0.5
    """alpha: weight of the divergence; 1 - alpha is that of cross-entropy. GKD has no cross-entropy."""

    lambda_gkd: float = 0.5
    """GKD: share of the data set's sequences. 1 is all off-policy, 0 all on-policy (the GKD paper and TRL
    count theirs the other way round)."""
    beta_gkd: float = 0.5
    """GKD: share of the student's own sequences, always 1 - ``lambda_gkd``. Setting one sets the other."""

    num_train_epochs: int = 3
    """Times that all rows are seen."""
    per_device_train_batch_size: int = 8
    """Rows at a time; a step takes this times ``gradient_accumulation_steps`` (times the GPUs)."""
    per_device_eval_batch_size: int = 8
    """Rows at a time when scoring; it does not change the scores."""
    learning_rate: float = 5e-5
    """Its highest, after the warm-up; it falls linearly to 0."""
    weight_decay: float = 0.01
    """AdamW's, a step, in units of the learning rate."""
    warmup_steps: int = 500
    """Optimizer steps until the learning rate is reached."""
    logging_steps: int = 100
    """Optimizer steps between two lines of ``history``."""
    eval_steps: int = 500
    """Optimizer steps between two evaluations on ``eval_dataset``."""
    save_steps: int = 500
    """Optimizer steps between two checkpoints; the last two are kept."""
    max_length: int = 512
    """Longest row in tokens; what is longer is cut at its end."""
    max_new_tokens: int = 128
    """GKD: tokens that the student samples at most for each prompt."""
    output_dir: str = "./output"
    """Parent of the checkpoints: ``<output_dir>/<method>/checkpoints``."""

    gradient_accumulation_steps: int = 1
    """Batches a step. Losses are means over the tokens of the whole step: the result stays the same."""
    max_grad_norm: float = 1.0
    """Length to which the gradient is cut, L2 over all parameters."""
    fp16: bool = False
    """Mixed precision in float16; needs a GPU. ``bf16`` is a field of TrainingArguments."""
    seed: int = 42
    """Order of the rows, dropout, sampling, and where an adapter starts."""

    epochs: int = 3
    """Another name of ``num_train_epochs``."""
    batch_size: int = 8
    """Another name of ``per_device_train_batch_size``."""

    use_peft: bool = False
    """Train an adapter on the student instead of all its weights."""
    peft_type: str = "lora"
    """``lora``, ``dora``, ``qlora``, ``prefix``, ``prompt``, ``ptuning`` or ``ia3``."""
    lora_r: int = 8
    """LoRA, DoRA, QLoRA: rank."""
    lora_alpha: int = 16
    """Scale: the update is multiplied by lora_alpha / lora_r."""
    lora_dropout: float = 0.1
    """Share of the adapter's inputs that is dropped while training, in [0, 1)."""
    lora_target_modules: list[str] | str | None = None
    """Module names, a pattern, or ``all-linear``. None: by the family of the model."""
    lora_bias: str = "none"
    """Which biases of the base are trained too: ``none``, ``all``, ``lora_only``."""
    num_virtual_tokens: int = 20
    """Prefix, prompt, P-tuning: learnt positions before every row."""
    prefix_projection: bool = False
    """Prefix: learn it through a small network, which is left out of what is saved."""
    encoder_hidden_size: int | None = None
    """Prefix with projection, P-tuning: width of that network. None: the model's."""
    prompt_tuning_init: str = "SAMPLE_VOCAB"
    """Prompt: start from ``SAMPLE_VOCAB``, ``TEXT`` or ``RANDOM``."""
    prompt_tuning_init_text: str | None = None
    """Prompt: the text to start from; needs a tokenizer."""
    ia3_target_modules: list[str] | str | None = None
    """IA3: names of the key, value and second feed-forward modules. None: by family."""
    ia3_feedforward_modules: list[str] | str | None = None
    """IA3: those of them whose input is scaled. None: by family."""

    _ready: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for short, long in ALIASES.items():
            self._settle(short, long, same, "are two names of one value")
        for share in SHARES:
            check_share(share, getattr(self, share))
        self._settle(*SHARES, rest, "must add up to 1")
        object.__setattr__(self, "_ready", True)
        self.validate()

    def _settle(self, one: str, other: str, convert: Callable[[Any], Any], rule: str) -> None:
        """Bring two fields into step: the one that was chosen says the other.

        Afterwards neither counts as chosen, so that ``dataclasses.replace`` may change either.
        """
        first, second = getattr(self, one), getattr(self, other)
        if isinstance(first, Unset) and not isinstance(second, Unset):
            first = convert(second)
        elif isinstance(second, Unset) and not isinstance(first, Unset):
            second = convert(first)
        elif not math.isclose(convert(first), second, abs_tol=1e-9):
            raise ArgumentError(f"{one}={first} and {other}={second}: they {rule}. Give one of them.")
        object.__setattr__(self, one, unset(first))
        object.__setattr__(self, other, unset(second))

    def __setattr__(self, name: str, value: Any) -> None:
        types = {field.name: str(field.type) for field in fields(self)}
        if name not in types:
            raise ArgumentError(no_field(name, types))
        if self._ready and not self.use_peft:
            check_adapter_field(name, value)
        value = typed(name, value, types[name])
        if self._ready and name in PARTNERS:
            partner, convert = PARTNERS[name]
            if partner in SHARES:
                check_share(name, value)
            object.__setattr__(self, partner, unset(convert(value)))
            value = unset(value)
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        """Whether both train the same, whatever the method."""
        return isinstance(other, DistillationConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # its fields may change

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.to_dict().items())})"

    def validate(self) -> None:
        """Look at all values together. Called on construction and before training.

        Raises:
            ArgumentError: for a value out of range.
        """
        from distil.api.experiment import to_experiment

        with library_words(self.peft_type):
            for method in ("kd", "gkd"):
                to_experiment(self, method)

    def to_dict(self) -> dict[str, Any]:
        """Every field as a plain value, aliases left out.

        Returns:
            What ``from_dict`` makes an equal config of; JSON holds it. ``left_to_method`` lists
            ``temperature`` where each method is to take its own.
        """
        values = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in ALIASES}
        left = ["temperature"] if isinstance(self.temperature, Unset) else []
        return values | ({LEFT_TO_METHOD: left} if left else {})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> DistillationConfig:
        """The config of ``to_dict``.

        Args:
            config_dict: field to value; what is absent takes its default.

        Returns:
            An equal config.

        Raises:
            ArgumentError: naming the nearest field, for a key that is none; and as the class does.
        """
        require(isinstance(config_dict, dict), f"config_dict is a {type(config_dict).__name__}: give a dict.")
        known = [f.name for f in fields(cls)]
        for key in config_dict:
            require(key in (*known, LEFT_TO_METHOD), no_field(str(key), known))
        for key in ("teacher_model_name", "student_model_name"):
            require(key in config_dict, f"{key} is missing: a hub name or a folder.")
        return cls(**config_dict)

    def save(self, filepath: str | Path) -> None:
        """Write the config as JSON, whole or not at all.

        Args:
            filepath: the file; its folder is made where it is absent.

        Raises:
            ArgumentError: where it cannot be written.
        """
        path = check_path("filepath", filepath)
        require(bool(path.name), f"filepath={filepath} is a folder: name a file in it.")
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as error:
            raise ArgumentError(f"filepath={filepath} cannot be written: {error.strerror}.") from error

    @classmethod
    def load(cls, filepath: str | Path) -> DistillationConfig:
        """The config that ``save`` wrote.

        Args:
            filepath: the file.

        Returns:
            An equal config.

        Raises:
            ArgumentError: where the file cannot be read, is not JSON, or has a key that is no field.
        """
        path = check_path("filepath", filepath)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ArgumentError(f"filepath={filepath} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise ArgumentError(f"filepath={filepath} is not JSON: {error}.") from error
        require(isinstance(content, dict), f"filepath={filepath} holds no config: its JSON is no object.")
        return cls.from_dict(content)

    def experiment(self, method: str = "kd", data: str | Path | None = None) -> ExperimentConfig:
        """The typed config of the runner, on a data set on disk or the hub.

        Args:
            method: ``kd``, ``revkd``, ``gkd``, or any other that is registered.
            data: as in ``command``.

        Returns:
            What ``python run.py`` would compose.

        Raises:
            ArgumentError: for a value out of range, or a method that nobody registered.
        """
        from distil.api.experiment import to_experiment

        require(isinstance(method, str), f"method is a {type(method).__name__}: give a name, such as kd.")
        with library_words(self.peft_type):
            return to_experiment(self, method, data=data)

    def command(self, method: str = "kd", data: str | Path | None = None) -> str:
        """The command line that does the same: the way from a notebook to a sweep.

        Args:
            method: ``kd``, ``revkd``, ``gkd``, or any other that is registered.
            data: where the rows are: a folder of ``save_to_disk`` with splits ``train``, ``validation`` and
                ``test``, or a hub name. None prints DATA, and says in a warning what that stands for.

        Returns:
            One line for a shell, quoted for it and for Hydra.

        Raises:
            ArgumentError: for a value out of range, or a method that nobody registered.
        """
        from distil.api.experiment import command_of, named_rows

        return command_of(self.experiment(method, named_rows(data)))
