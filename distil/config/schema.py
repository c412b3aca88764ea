"""The typed config: one dataclass a config group. Standard library only; its defaults live here alone.

Ranges are checked in ``__post_init__`` with ``InputError``, so a bad value ends before any model loads.
Groups with a registry (method, data, peft) are subclassed beside what consumes them.

One long file: it is a list, each key with its meaning right under it, and the reference follows its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from distil.config.checks import check as check
from distil.config.checks import check_above_0
from distil.config.checks import check_choice as check_choice
from distil.config.trainer import TrainerConfig
from distil.system.files import expanded

MISSING: Any = "???"
"""A value the user must give (OmegaConf's marker)."""


@dataclass
class MethodConfig:
    """Keys that methods share, so that one override sweeps across all of them."""

    name: str = MISSING
    temperature: float = 2.0
    """Softens both distributions of every divergence."""
    kd_loss_weight: float = 0.5
    """alpha: weight of the divergence; 1 - alpha is the weight of cross-entropy on the reference."""

    ignored: ClassVar[tuple[str, ...]] = ()
    """Shared keys this method does not use; they stay out of the identity of its runs."""

    def __post_init__(self) -> None:
        check_above_0("method.temperature", self.temperature)
        check(self.temperature <= 1e6, f"method.temperature must be at most 1e6, got {self.temperature}.")
        check(
            0 <= self.kd_loss_weight <= 1,
            f"method.kd_loss_weight must lie in [0, 1], got {self.kd_loss_weight}.",
        )


@dataclass
class LoadConfig:
    """Where a model comes from and how ``from_pretrained`` loads it (keys under its own names)."""

    key: ClassVar[str] = "model.*"
    """Where in the config it stands, for messages."""

    path: str | None = None
    """A local folder or a hub name."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    gguf_file: str | None = None
    """Name of a GGUF file inside the folder."""
    dtype: str = "float32"
    """``float32``, ``bfloat16``, ``float16`` or ``auto`` (as saved)."""
    attn_implementation: str | None = None
    """``eager``, ``sdpa``, ``flash_attention_2``, …; null: the best that transformers finds."""
    device_map: str | None = None
    """``auto`` spreads it over devices (accelerate), ``cpu`` holds it there; null: the run's one device."""
    trust_remote_code: bool = False
    """true: run the Python files that lie beside the model (``auto_map`` in its config.json), with all the
    rights that you have. The results say so. Weights are read as safetensors all the same."""

    def __post_init__(self) -> None:
        check_choice(f"{self.key}.dtype", self.dtype, ("float32", "bfloat16", "float16", "auto"))


SELF = "self"
"""The teacher's path that means the student's own base, its adapter off."""


@dataclass
class TeacherConfig(LoadConfig):
    """The teacher. ``path: null`` means none (``method=sft`` needs none); ``self``: the student's own base,
    with its adapter off."""

    key: ClassVar[str] = "model.teacher"

    quantization: str | None = None
    """Hold it in fewer bits (bitsandbytes): ``nf4`` or ``int8``. null: as ``dtype`` says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantization is not None:
            check_choice("model.teacher.quantization", self.quantization, ("nf4", "int8"))
        given = [key for key in ("revision", "gguf_file", "quantization") if getattr(self, key) is not None]
        check(
            not (self.is_self and given),
            f"model.teacher.path=self is the student's own base, loaded once, as model.student says: it "
            f"takes no model.teacher.{given[0] if given else ''}.",
        )

    @property
    def is_self(self) -> bool:
        """Whether the student's own base is the teacher."""
        return self.path == SELF


@dataclass
class StudentConfig(LoadConfig):
    """The student: a model of its own, the teacher with fewer layers, or a fresh one of its kind."""

    key: ClassVar[str] = "model.student"

    init: str = "pretrained"
    """``pretrained``, or ``random``: the config of ``path`` (null: the teacher's), ``overrides`` applied."""
    keep_layers: Any = None
    """Depth pruning: a list of block indices, or a count (chosen by block influence). null keeps all."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Keys of the model's own config to change with ``init: random`` (hidden_size, num_hidden_layers, …)."""
    adapter: str | None = None
    """Folder of a saved adapter to go on from, of the kind and shape that ``peft`` says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("model.student.init", self.init, ("pretrained", "random"))
        check(
            not self.overrides or self.init == "random",
            "model.student.overrides changes the shape of a new model: add model.student.init=random.",
        )
        layers = self.keep_layers
        if layers is None:
            return
        example = "give a list of block indices such as [0,2,4], or a count such as 15"
        if isinstance(layers, int) and not isinstance(layers, bool):
            check(layers >= 1, f"model.student.keep_layers={layers}: {example}.")
            return
        check(
            isinstance(layers, (list, tuple))
            and len(layers) > 0
            and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in layers)
            and sorted(set(layers)) == list(layers),
            f"model.student.keep_layers={layers}: {example}; indices rise and do not repeat.",
        )


@dataclass
class ModelConfig:
    """A teacher -> student pair. ``student.path: null`` means: from the teacher."""

    name: str = MISSING
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)


@dataclass
class PeftConfig:
    """Which adapter the student trains through. ``none`` trains all of it."""

    name: str = MISSING


@dataclass
class RolloutConfig:
    """How the student's own sequences are sampled (on-policy methods)."""

    name: str = "default"
    max_new_tokens: int = 128
    """Tokens after the prompt at most; a sequence ends earlier at its EOS."""
    sampling_temperature: float = 1.0
    """Divides the logits that are sampled from; 1: the student as it is."""
    top_k: int = 0
    """Sample among the likeliest K. 0: all tokens."""
    top_p: float = 1.0
    """Sample among the likeliest that hold this share of the probability. 1: all tokens."""

    def __post_init__(self) -> None:
        check(
            self.max_new_tokens >= 1,
            f"rollouts.max_new_tokens must be at least 1, got {self.max_new_tokens}.",
        )
        check_above_0("rollouts.sampling_temperature", self.sampling_temperature)
        check(self.top_k >= 0, f"rollouts.top_k must be 0 (all) or above, got {self.top_k}.")
        check(0 < self.top_p <= 1, f"rollouts.top_p must lie in (0, 1], got {self.top_p}.")


@dataclass
class DataConfig:
    """Keys that every data source shares: how rows become scored token sequences."""

    name: str = MISSING
    max_length: int = 512
    """Longest sequence in tokens, prompt and response together."""
    score: str = "response"
    """``response``: score response tokens and the closing EOS; ``all``: the prompt's too."""
    truncation: str = "response"
    """Too-long rows: cut the ``response`` at its end, the prompt at its left (``prompt_left``), ``drop``."""
    chat_template: bool | None = None
    """Wrap prompts in the tokenizer's chat template. null: where it has one."""
    on_bad_row: str = "refuse"
    """Malformed rows (no JSON object, a field too few, a cell that is no text): ``refuse`` the data set and
    name the line, or ``skip`` them, counted in the results and listed in ``bad_rows.jsonl``."""
    max_train_rows: int | None = None
    """Cap on the training rows. null: all."""
    max_eval_rows: int | None = None
    """Cap on the validation rows and on the test rows, each."""
    validation_fraction: float = 0.05
    """Share of the training rows set aside (by seed) where a set has no validation split; test likewise."""
    split_seed: int = 0
    """Seed of that split: not the run's seed, so that all seeds evaluate on the same rows."""

    def __post_init__(self) -> None:
        check(self.max_length >= 2, f"data.max_length must be at least 2, got {self.max_length}.")
        check_choice("data.score", self.score, ("response", "all"))
        check_choice("data.on_bad_row", self.on_bad_row, ("refuse", "skip"))
        check_choice("data.truncation", self.truncation, ("response", "prompt_left", "drop"))
        for key in ("max_train_rows", "max_eval_rows"):
            value = getattr(self, key)
            check(value is None or value >= 1, f"data.{key} must be at least 1 or null, got {value}.")
        check(
            0 < self.validation_fraction < 0.5,
            f"data.validation_fraction must lie in (0, 0.5), got {self.validation_fraction}.",
        )


@dataclass
class TeacherCacheConfig:
    """What the teacher says about the data set, computed once and kept; ``none`` asks it at every step."""

    name: str = "none"
    folder: str | None = None
    """Where caches lie, for all runs. null: ``.teacher_cache`` in ``output_dir``."""


@dataclass
class RunConfig:
    """How the runner behaves around training."""

    resume: bool = True
    """Go on from the newest checkpoint that verifies; false starts this run afresh."""
    rerun: bool = False
    """Run again although it is done, in a new folder."""
    allow_network: bool = True
    """false: hub names resolve to the local cache only, W&B records offline, and every connection that any
    library tries, but to this machine itself, is refused."""
    threads: int | None = None
    """CPU threads of one operation. null: torch's own choice. Tiny models are fastest with one."""
    packing: bool = False
    """Lay the rows of a batch end to end, so that no padding is computed. The same losses to rounding; faster
    the more the lengths of rows differ."""
    max_skipped_steps: int = 0
    """How many steps whose loss or gradient is nan or infinite may be left out; at one more the run fails.
    ``broken_steps.jsonl`` keeps the rows of each."""
    detect_anomaly: bool = False
    """Stop at the operation whose gradient is NaN, and name it (torch's detect_anomaly; slow)."""
    plugins: list[str] = field(default_factory=list)
    """Files or folders of Python that register methods, data, metrics (read before the config composes)."""

    def __post_init__(self) -> None:
        check(
            self.threads is None or self.threads >= 1, f"run.threads must be at least 1, got {self.threads}."
        )
        check(
            self.max_skipped_steps >= 0,
            f"run.max_skipped_steps must be at least 0, got {self.max_skipped_steps}.",
        )


@dataclass
class EvalConfig:
    """Evaluation of teacher, untouched student and distilled student on the same held-out rows."""

    name: str = "default"
    metrics: list[str] = field(default_factory=lambda: ["likelihood", "agreement", "rouge", "bleu", "length"])
    """Names in the metric registry, in the order of the table."""
    teacher: bool = True
    """Evaluate the teacher too (KL and agreement need it). false saves memory where the method needs none."""
    batch_size: int = 16
    """Rows evaluated at once; it changes no score. On the way: ``trainer.per_device_eval_batch_size``."""
    generation_rows: int = 64
    """How many held-out rows are answered by generation; likelihoods use all of them. 0: none."""
    samples: int = 20
    """How many of those answers go into samples.jsonl."""
    max_new_tokens: int = 128
    """Tokens of an answer at most."""
    do_sample: bool = False
    """false: greedy."""
    sampling_temperature: float = 1.0
    """With do_sample: the logits are divided by it. ``method.temperature`` is another thing: the loss's."""
    top_k: int = 0
    """With do_sample: among the likeliest K. 0: all tokens."""
    top_p: float = 1.0
    """With do_sample: among the likeliest that hold this share of the probability. 1: all tokens."""
    during_training_rows: int = 64
    """Rows of the cheap evaluation during training (validation split)."""

    def __post_init__(self) -> None:
        for key in ("batch_size", "max_new_tokens", "during_training_rows"):
            check(getattr(self, key) >= 1, f"eval.{key} must be at least 1, got {getattr(self, key)}.")
        for key in ("generation_rows", "samples", "top_k"):
            check(getattr(self, key) >= 0, f"eval.{key} must be at least 0, got {getattr(self, key)}.")
        check_above_0("eval.sampling_temperature", self.sampling_temperature)
        check(0 < self.top_p <= 1, f"eval.top_p must lie in (0, 1], got {self.top_p}.")

    @property
    def ignored(self) -> dict[str, str]:
        """Fields that another one overrules, and how it would not."""
        if self.do_sample:
            return {}
        why = "answers are greedy (eval.do_sample=true draws them)"
        return dict.fromkeys(("sampling_temperature", "top_k", "top_p"), why)


@dataclass
class TrackerConfig:
    """Where scalars, samples and results go besides the run directory. All keys but ``name`` are W&B's."""

    name: str = MISSING
    project: str = "distil"
    """Project that the run is listed in."""
    entity: str | None = None
    """User or team that the project belongs to. null: the key's own."""
    group: str | None = None
    """Runs that are shown as one. null: the run's ``name``, which the jobs of a sweep share."""
    job_type: str = "distil"
    """What W&B lists the run as within its group."""
    tags: list[str] = field(default_factory=list)
    """Beside ``method=…``, ``model=…`` and ``peft=…``, which every run has. At most 64 characters each."""
    log_report: bool = True
    """Keep report.html as an artifact."""
    log_student: bool = False
    """Keep the distilled student as an artifact: all of its weights."""

    def __post_init__(self) -> None:
        for tag in self.tags:
            check(1 <= len(tag) <= 64, f"tracker.tags: {tag!r}: a tag has 1 to 64 characters.")

    @property
    def ignored(self) -> dict[str, str]:
        """Fields that another one overrules, and how it would not."""
        if self.name == "wandb":
            return {}
        why = f"tracker={self.name} (tracker=wandb uses it)"
        return {each.name: why for each in fields(self) if each.name != "name"}


@dataclass
class CompareConfig:
    """The comparison at the end of a sweep. It changes no run."""

    name: str = "default"
    budget: str | None = None
    """Read the validation curves where all runs have spent the same ``steps``, ``tokens`` or ``seconds``, as
    ``distil compare --budget`` does. null: the scores at the end of the runs."""

    def __post_init__(self) -> None:
        if self.budget is not None:
            check_choice("compare.budget", self.budget, ("steps", "tokens", "seconds"))


@dataclass
class ExperimentConfig:
    """Everything one run is."""

    name: str = "default"
    """Folder of the run under ``output_dir``."""
    seed: int = 0
    """Order of the rows, dropout, sampling, random weights; not the split of the data."""
    output_dir: str = "outputs"
    """Parent of all runs."""
    method: MethodConfig = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    peft: PeftConfig = MISSING
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    teacher_cache: TeacherCacheConfig = field(default_factory=TeacherCacheConfig)
    data: DataConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Fields of ``transformers.TrainingArguments``, and only those."""
    run: RunConfig = field(default_factory=RunConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)

    def __post_init__(self) -> None:
        check(
            0 <= self.seed < 2**32,
            f"seed must lie in [0, 2**32), got {self.seed}.",
        )
        # Once and for all: one place that took ~ for a folder of that name would part a run from its files.
        self.output_dir = _written_out("output_dir", self.output_dir)
        if self.teacher_cache.folder is not None:
            self.teacher_cache.folder = _written_out("teacher_cache.folder", self.teacher_cache.folder)
        self.run.plugins = [_written_out("run.plugins", path) for path in self.run.plugins]


def _written_out(key: str, path: str) -> str:
    return str(expanded(key, path)) if path.startswith("~") else path
