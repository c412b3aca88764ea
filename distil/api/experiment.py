"""From the library's flat config to the runner's typed one, and from there to the command line."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from distil.adapters.base import ADAPTERS
from distil.api.errors import require
from distil.api.fields import ADAPTER_FIELDS, Flat
from distil.api.unset import Unset, plain
from distil.config.schema import (
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    PeftConfig,
    RolloutConfig,
    StudentConfig,
    TeacherConfig,
    TrackerConfig,
)
from distil.config.trainer import TrainerConfig
from distil.data.hf import HfConfig
from distil.effect import leaves
from distil.methods.base import METHODS
from distil.registry import unknown_name
from distil.system.files import read_json

logger = logging.getLogger(__name__)

SAVED = "a folder that DatasetDict(train=…, validation=…, test=…).save_to_disk wrote"
"""What a command line can name of rows that are in memory."""


def program() -> str:
    """How the runner is called: by its script in the folder that holds it, else by the installed command."""
    script = Path(__file__).resolve().parents[2] / "run.py"
    return "python run.py" if script.parent == Path.cwd() and script.is_file() else "distil run"


TRAINER_FIELDS = (
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "warmup_steps",
    "max_grad_norm",
    "logging_steps",
    "eval_steps",
    "save_steps",
)
"""Fields that are keys of ``trainer`` under the same name."""

PEFT_NAMES = {"prefix_tuning": "prefix", "prompt_tuning": "prompt", "p_tuning": "ptuning"}
"""What PEFT calls them."""


def to_experiment(
    config: Flat,
    method: str,
    *,
    data: str | Path | None = None,
    score: str = "response",
    models: Mapping[str, Mapping[str, Any]] | None = None,
    peft: Mapping[str, Any] | None = None,
) -> ExperimentConfig:
    """The typed config of the runner. The only place where the flat fields are read as a run's keys.

    Args:
        score: ``data.score``: ``all`` for tokenised rows without labels, where every token is scored.
        models: further keys of ``model.teacher`` and ``model.student`` (``dtype``; a ``path`` goes before
            the name).
        peft: further keys of the adapter's config (``bits``).

    Raises InputError for a value out of range.
    """
    require(
        data is None or isinstance(data, (str, Path)),
        f"data is a {type(data).__name__}: a command line names a folder. DatasetDict(train=…, "
        "validation=…, test=…).save_to_disk(folder) makes one.",
    )
    entry = METHODS.get(method)
    assert entry.config is not None
    flat = {field.name: getattr(config, field.name) for field in fields(config)}
    chosen = {name: plain(value) for name, value in flat.items() if not isinstance(value, Unset)}
    of_method = {f.name: chosen[f.name] for f in fields(entry.config) if f.name in chosen}
    if "lambda_gkd" in {f.name for f in fields(entry.config)}:
        of_method["lambda_gkd"] = float(config.lambda_gkd)
    more = models or {}
    trainer = {name: plain(flat[name]) for name in TRAINER_FIELDS}
    return ExperimentConfig(
        seed=config.seed,
        output_dir=config.output_dir,
        method=entry.config(**of_method),
        model=ModelConfig(
            "custom",
            TeacherConfig(**({"path": config.teacher_model_name} | dict(more.get("teacher", {})))),
            StudentConfig(**({"path": config.student_model_name} | dict(more.get("student", {})))),
        ),
        peft=_peft(config, peft or {}),
        rollouts=RolloutConfig(max_new_tokens=config.max_new_tokens),
        data=HfConfig(path=None if data is None else str(data), max_length=config.max_length, score=score),
        trainer=TrainerConfig(
            **trainer,
            fp16=True if config.fp16 else None,
            eval_strategy="steps",
            save_strategy="steps",
            save_total_limit=2,
        ),
        eval=EvalConfig(batch_size=config.per_device_eval_batch_size),
        tracker=TrackerConfig(name="none"),
    )


def _peft(config: Flat, more: Mapping[str, Any]) -> PeftConfig:
    """The adapter's own config; ``lora_r`` is its ``r``, and so on."""
    made, names = _adapter_fields(config)
    known = {field.name for field in fields(made)}  # a quantised base under lora has no keys for it
    keys = {key: getattr(config, name) for key, name in names.items()}
    config_of_it: PeftConfig = made(**keys, **{key: value for key, value in more.items() if key in known})
    return config_of_it


def _adapter_fields(config: Flat) -> tuple[type[PeftConfig], dict[str, str]]:
    """The config class of the adapter, and its keys with the flat fields that say them.

    A field whose default is another than the key's says nothing for it: the adapter keeps its own.
    """
    known = [name for name in ADAPTERS.entries() if name != "none"]
    kind = PEFT_NAMES.get(config.peft_type.lower(), config.peft_type.lower())
    require(kind in known, unknown_name("peft_type", config.peft_type, known))
    made = ADAPTERS.get(kind if config.use_peft else "none").config
    assert made is not None
    flat = {field.name: field.default for field in fields(config)}
    prefix = "ia3" if kind == "ia3" else "lora"
    names = {key.name: key.name if key.name in flat else f"{prefix}_{key.name}" for key in fields(made)}
    shared = [key for key in fields(made) if names[key.name] in flat]
    same = {key.name for key in shared if flat[names[key.name]] == key.default}
    return made, {key: name for key, name in names.items() if key in same}


def idle_fields(config: Flat) -> str:
    """Fields of adapters that were chosen and are not read: by this kind of one, or as none is asked for."""
    read = {"peft_type", *_adapter_fields(config)[1].values()} if config.use_peft else set()
    known = [one for one in fields(config) if one.name.startswith(ADAPTER_FIELDS) and one.name not in read]
    idle = [one.name for one in known if getattr(config, one.name) != one.default]
    return ", ".join(f"{name}={getattr(config, name)!r}" for name in idle)


# ---- the command line


def named_rows(data: str | Path | None) -> str | Path:
    """``data``, or the word that stands for it. Warns of that, and of a folder that lacks a split."""
    if data is None:
        logger.warning(
            "DATA in the command stands for your rows: %s, or a hub name. command(data=…) puts it in.", SAVED
        )
        return "DATA"
    splits = _saved_splits(data) if isinstance(data, (str, Path)) else None
    if splits is not None and not {"train", "validation", "test"} <= splits:
        logger.warning(
            "data=%s does not hold all of train, validation and test: the runner sets aside what is missing "
            "from the training rows, so that it trains on fewer than were trained on here. Give %s.",
            data,
            SAVED,
        )
    return data


def _saved_splits(data: str | Path) -> set[str] | None:
    """The splits of a folder that ``save_to_disk`` wrote; None where ``data`` is none, or is damaged."""
    folder = Path(data).expanduser()
    if not (folder / "dataset_dict.json").is_file():
        return {"train"} if (folder / "state.json").is_file() else None
    try:
        return set(read_json(folder / "dataset_dict.json")["splits"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def command_of(experiment: ExperimentConfig) -> str:
    """The command line that composes to ``experiment``: only what differs from the runner's defaults."""
    words = [f"method={experiment.method.name}"]
    if experiment.peft.name != "none":
        words.append(f"peft={experiment.peft.name}")
    words.append(f"data={experiment.data.name}")
    defaults = leaves(asdict(_defaults(experiment)))
    for key, value in leaves(asdict(experiment)).items():
        if value != defaults[key] and key not in ("model.name", "tracker.name"):
            words.append(f"{key}={_override(value)}")
    return f"{program()} {shlex.join(words)}"


def _defaults(experiment: ExperimentConfig) -> ExperimentConfig:
    """What the runner takes where the command line says nothing: dataclasses, and ``conf/trainer``."""
    from omegaconf import OmegaConf

    from distil.config.help import conf_folder

    trainer: Any = OmegaConf.to_container(OmegaConf.load(conf_folder() / "trainer" / "default.yaml"))
    return ExperimentConfig(
        method=type(experiment.method)(),
        model=ModelConfig("custom"),
        peft=type(experiment.peft)(),
        data=type(experiment.data)(),
        trainer=TrainerConfig(**trainer),
        tracker=TrackerConfig(name="none"),
    )


def _override(value: Any) -> str:
    """``value`` in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_override, value))}]"
    text = str(value)
    if UNQUOTED.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    # In double quotes, which the shell's single ones hold as they are.
    quote = "'" if '"' in text and "'" not in text else '"'
    escaped = re.sub(rf"(\\+)(?={quote}|$)", r"\1\1", text).replace(quote, f"\\{quote}")
    return f"{quote}{escaped}{quote}"


UNQUOTED = re.compile(r"[A-Za-z./_][\w./@+:%-]*( [\w./@+:%-]+)*", re.ASCII)
"""Texts that Hydra's grammar takes as they are."""
