"""Every option of every group composes to its own dataclass, without torch; no option leaks into another."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from distil.cli import _compose
from distil.config.command_line import expand
from distil.config.help import conf_folder, defaults, options
from distil.config.schema import ExperimentConfig
from distil.config.store import REGISTRIES, register_schemas, typed
from distil.config.trainer import TrainerConfig
from distil.config.training_arguments import CHOICES
from distil.config.validate import validate
from distil.preflight import preflight
from distil.types import InputError

ROOT = Path(__file__).resolve().parents[2]
CONF = conf_folder()
OPTIONS = [f"{group}={name}" for group, found in options(CONF).items() for name in found]
NEEDED = {
    "data=jsonl": ["data.train_file=F"],
    "data=hf": ["data.path=P"],
    "model=custom": ["model.teacher.path=T", "model.student.path=S"],
}
"""Keys without which an option cannot be used."""


def swept(choice: str) -> list[list[str]]:
    """The values of each key that ``choice`` sweeps, as overrides; none for an option that is no sweep."""
    group, _, name = choice.partition("=")
    content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8")) or {}
    params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
    return [[f"{key}={value}" for value in str(values).split(",")] for key, values in params.items()]


def needed(choice: str) -> list[str]:
    """Those keys; of a preset that sweeps, the first value of each key that it sweeps."""
    return [*NEEDED.get(choice, ()), *(values[0] for values in swept(choice))]


GUIDE = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "learning_rate": 5e-5,
    "weight_decay": 0.01,
    "warmup_steps": 500,
    "logging_steps": 100,
    "eval_steps": 500,
    "save_steps": 500,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
}
"""The defaults that the API guide promises, for everything that brings no recipe of its own."""


def compose(*overrides: str) -> ExperimentConfig:
    register_schemas()
    expanded = expand(overrides)
    config = typed(_compose(expanded)[0], expanded)
    validate(config)
    return config


@pytest.mark.parametrize("choice", OPTIONS)
def test_every_option_composes(choice: str) -> None:
    config = compose(choice, *needed(choice))
    group, _, name = choice.partition("=")
    for key in REGISTRIES:
        part = getattr(config, key)
        assert type(part) is REGISTRIES[key].get(part.name).config
    if group in ("method", "data", "peft", "model", "tracker"):
        assert getattr(config, group).name == name


@pytest.mark.parametrize("choice", [choice for choice in OPTIONS if swept(choice)])
def test_every_job_of_a_sweep_composes(choice: str) -> None:
    """And no two of its jobs are the same."""
    jobs = [compose(choice, *job) for job in itertools.product(*swept(choice))]
    assert len({str(job) for job in jobs}) == len(jobs) > 1


@pytest.mark.parametrize("group", list(REGISTRIES))
def test_registry_files_and_config_files_have_the_same_names(group: str) -> None:
    registry = REGISTRIES[group]
    own = {  # what DISTIL_PLUGINS brings has its files elsewhere
        name: entry
        for name, entry in registry.entries().items()
        if entry.factory.__module__.startswith(f"{registry.package}.")
    }
    assert set(own) == {file.stem for file in (CONF / group).glob("*.yaml")}
    for name, entry in own.items():
        assert entry.config is not None
        assert next(f.default for f in fields(entry.config) if f.name == "name") == name
        assert (ROOT.joinpath(*registry.package.split(".")) / f"{name}.py").is_file()


def test_every_default_exists() -> None:
    for group, name in defaults(CONF).items():
        assert (CONF / group / f"{name}.yaml").is_file()


def test_every_recipe_belongs_to_an_option() -> None:
    for file in (CONF / "recipe").glob("*.yaml"):
        assert (CONF / "model" / file.name).is_file()
    for file in (CONF / "recipe" / "data").glob("*.yaml"):
        assert (CONF / "data" / file.name).is_file()


def test_every_tuned_rate_belongs_to_a_pair_and_an_adapter() -> None:
    files = list((CONF / "tuned_adapter").glob("*.yaml"))
    assert files
    for file in files:
        model, _, peft = file.stem.rpartition("_")
        assert (CONF / "model" / f"{model}.yaml").is_file()
        assert (CONF / "peft" / f"{peft}.yaml").is_file()
        own = compose(f"model={model}", f"peft={peft}").trainer.learning_rate
        assert own != compose(f"model={model}").trainer.learning_rate


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=gpt2", "data=dolly15k"],
        ["model=qwen"],
        ["model.teacher.path=A", "model.student.path=B"],
        ["model.student.path=B", "method=sft", "data.train_file=F"],
    ],
)
def test_the_embedded_recipe_leaks_into_nothing_else(overrides: Sequence[str]) -> None:
    config = compose(*overrides)
    for key, value in GUIDE.items():
        assert getattr(config.trainer, key) == value
    assert config.trainer.max_steps is None
    assert config.trainer.lr_scheduler_type is None


def test_the_guides_pair_has_the_guides_defaults() -> None:
    config = compose("model=gpt2", "data=dolly15k")
    assert (config.model.teacher.path, config.model.student.path) == ("gpt2-medium", "gpt2")
    assert config.data.max_length == 512
    assert config.data.max_train_rows is None
    assert (config.method.temperature, config.method.kd_loss_weight) == (2.0, 0.5)
    assert config.rollouts.max_new_tokens == 128
    assert "faithfulness" not in config.eval.metrics


def test_rows_bring_what_is_theirs_and_a_pair_what_is_its() -> None:
    rows = compose("model=gpt2", "data=embedded")
    assert "faithfulness" in rows.eval.metrics
    assert rows.trainer.learning_rate == 5e-5
    pair = compose("model=embedded", "data=dolly15k")
    assert "faithfulness" not in pair.eval.metrics
    assert pair.data.max_train_rows is None
    assert pair.trainer.learning_rate != 5e-5


def test_the_command_line_wins_over_experiment_over_recipe() -> None:
    recipe = compose()
    experiment = compose("experiment=ample_rows")
    assert recipe.data.max_train_rows != experiment.data.max_train_rows == 5000
    assert experiment.trainer.learning_rate == recipe.trainer.learning_rate
    assert compose("experiment=ample_rows", "data.max_train_rows=7").data.max_train_rows == 7


def test_a_shared_key_sweeps_across_all_methods() -> None:
    for name in REGISTRIES["method"].entries():
        assert compose(f"method={name}", "method.temperature=3").method.temperature == 3


def test_trainer_is_typed() -> None:
    config = compose("trainer.lr_scheduler_kwargs={min_lr: 1e-6}", "trainer.warmup_steps=0.1")
    assert isinstance(config.trainer, TrainerConfig)
    assert config.trainer.lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert config.trainer.arguments()["warmup_steps"] == 0.1


def test_every_trainer_field_can_be_set_from_the_command_line() -> None:
    samples = {"int": "1", "float": "0.5", "bool": "false", "str": "text", "Any": "{a: 1}"}
    choices = {**CHOICES, "metric_for_best_model": ("loss",)}
    given = {}
    for field in fields(TrainerConfig):
        kind = str(field.type).removesuffix(" | None")
        given[field.name] = choices[field.name][0] if field.name in choices else samples[kind]
    config = compose(*(f"trainer.{name}={value}" for name, value in given.items()))
    assert set(config.trainer.arguments()) == set(given)
    assert config.trainer.fsdp_config == {"a": 1}
    assert config.trainer.ddp_timeout == 1
    assert config.trainer.bf16 is False


BLOCKED = """
import sys

class Refuse:
    heavy = {"torch", "transformers", "datasets", "evaluate", "peft", "accelerate", "numpy", "matplotlib"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.heavy:
            raise AssertionError(f"imported {name} to compose a config")

sys.meta_path.insert(0, Refuse())
from distil.cli import _compose
from distil.config.command_line import expand
from distil.config.store import register_schemas, typed
from distil.config.validate import validate

register_schemas()
for line in sys.stdin.read().splitlines():
    overrides = expand(line.split("\\t"))
    validate(typed(_compose(overrides)[0], overrides))
    print(line)
"""


def test_every_option_composes_with_torch_blocked() -> None:
    lines = ["\t".join([choice, *needed(choice)]) for choice in OPTIONS]
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == lines


REGISTERED = """
from distil.config.saved import REGISTRIES
from distil.metrics.base import METRICS
from distil.registry import load_plugins

load_plugins(sys.argv[1:])
print(*(len(registry.entries()) > 0 for registry in (*REGISTRIES.values(), METRICS)))
"""


def test_all_that_is_registered_is_known_with_torch_blocked() -> None:
    """The user's own files too (DISTIL_PLUGINS): ``--help`` and a mistyped key answer at once."""
    plugins = filter(None, os.environ.get("DISTIL_PLUGINS", "").split(os.pathsep))
    code = BLOCKED.partition("from distil")[0] + REGISTERED
    result = subprocess.run(
        [sys.executable, "-c", code, *plugins], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) == {"True"}


@pytest.mark.parametrize("peft", ["prefix", "prompt", "ptuning"])
def test_packing_has_no_room_for_a_learnt_prompt(peft: str) -> None:
    """Refused before a model loads."""
    with pytest.raises(InputError, match=rf"run\.packing=true: peft={peft} "):
        preflight(compose(f"peft={peft}", "run.packing=true"))
