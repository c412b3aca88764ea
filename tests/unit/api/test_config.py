"""``DistillationConfig``: values in step, exact round trips, the command line that composes to the same."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from distil.adapters.base import ADAPTERS
from distil.adapters.lora import LoraConfig
from distil.api.config import DistillationConfig
from distil.api.errors import ArgumentError
from distil.config.command_line import expand
from distil.config.help import conf_folder
from distil.config.schema import ExperimentConfig
from distil.config.store import register_schemas, typed
from distil.methods.base import METHODS

ROOT = Path(__file__).resolve().parents[3]
NAMES: dict[str, Any] = {"teacher_model_name": "gpt2-medium", "student_model_name": "gpt2"}
KINDS = [name for name in ADAPTERS.entries() if name != "none"]


def config(**keys: Any) -> DistillationConfig:
    return DistillationConfig(**(NAMES | keys))


def composed(command: str) -> ExperimentConfig:
    """What the runner makes of a printed command."""
    words = shlex.split(command)
    assert words[:2] in (["python", "run.py"], ["distil", "run"])
    register_schemas()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return typed(compose("config", expand(words[2:])), words[2:])


# ---- two names of one value


def test_aliases_say_the_same_value() -> None:
    made = config(epochs=5, batch_size=2)
    assert (made.num_train_epochs, made.per_device_train_batch_size) == (5, 2)
    made = config(num_train_epochs=4, per_device_train_batch_size=16)
    assert (made.epochs, made.batch_size) == (4, 16)
    assert config(epochs=3, num_train_epochs=3).epochs == 3
    made.epochs = 7
    made.per_device_train_batch_size = 1
    assert (made.num_train_epochs, made.batch_size) == (7, 1)


@pytest.mark.parametrize(
    "keys",
    [
        {"epochs": 5, "num_train_epochs": 3},  # 3 is the default, and was given nevertheless
        {"batch_size": 4, "per_device_train_batch_size": 8},
        {"lambda_gkd": 0.3, "beta_gkd": 0.3},
        {"lambda_gkd": 0.3, "beta_gkd": 0.5},
    ],
)
def test_two_names_that_differ_are_an_error(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Give one of them") as caught:
        config(**keys)
    assert all(f"{key}={value}" in str(caught.value) for key, value in keys.items())


def test_beta_is_the_rest_of_lambda_on_construction_and_on_assignment() -> None:
    assert config(lambda_gkd=0.3).beta_gkd == 0.7
    assert config(beta_gkd=0.9).lambda_gkd == 0.1
    assert config(lambda_gkd=0.3, beta_gkd=0.7).lambda_gkd == 0.3
    made = config()
    made.lambda_gkd = 1
    assert made.beta_gkd == 0
    made.beta_gkd = 0.25
    assert made.lambda_gkd == 0.75
    with pytest.raises(ValueError, match=r"lambda_gkd must lie in \[0, 1\], got 2"):
        made.lambda_gkd = 2
    assert made.lambda_gkd == 0.75


def test_replace_keeps_the_pairs_in_step() -> None:
    made = config(epochs=5, lambda_gkd=0.2)
    assert replace(made, lambda_gkd=0.9).beta_gkd == 0.1
    assert replace(made, beta_gkd=0.9).lambda_gkd == 0.1
    assert replace(made, num_train_epochs=2).epochs == 2
    assert replace(made, epochs=2).num_train_epochs == 2
    assert replace(made, seed=1) == config(epochs=5, lambda_gkd=0.2, seed=1)


# ---- temperature: the method's own where nobody chose one


def test_temperature_is_left_to_the_method_until_it_is_chosen() -> None:
    made = config()
    assert made.temperature == 2.0
    assert {m: made.experiment(m).method.temperature for m in ("kd", "revkd", "gkd")} == {
        "kd": 2.0,
        "revkd": 2.0,
        "gkd": 1.0,
    }
    for chosen in (config(temperature=2.0), config(temperature=2)):
        assert chosen.experiment("gkd").method.temperature == 2.0
    made.temperature = 2.0
    assert made.experiment("gkd").method.temperature == 2.0


def test_configs_that_train_otherwise_are_not_equal() -> None:
    left, chosen = config(), config(temperature=2.0)
    assert left != chosen
    assert left == config()
    assert left != "a text"
    assert "left_to_method=['temperature']" in repr(left)
    assert "left_to_method" not in repr(chosen)


def test_a_number_that_is_copied_counts() -> None:
    """Whatever field it comes from, and whether anybody had chosen it there."""
    other = config(epochs=5, lambda_gkd=0.3)
    assert config(kd_loss_weight=other.beta_gkd).experiment("kd").method.kd_loss_weight == 0.7  # type: ignore[attr-defined]
    assert config(temperature=other.beta_gkd).experiment("gkd").method.temperature == 0.7
    assert config(epochs=other.epochs).num_train_epochs == 5
    assert config(per_device_train_batch_size=other.num_train_epochs).batch_size == 5
    assert config(lambda_gkd=other.beta_gkd).beta_gkd == 0.3
    made = config()
    made.kd_loss_weight, made.seed = other.lambda_gkd, other.epochs
    assert made.experiment("kd").method.kd_loss_weight == 0.3  # type: ignore[attr-defined]
    assert type(made.experiment("kd").seed) is int
    names = ["layers"]
    adapted = config(use_peft=True, lora_target_modules=tuple(names), lora_bias="none")
    assert adapted.lora_target_modules == ["layers"]
    adapted.lora_target_modules = names
    names.append("more")
    assert adapted.lora_target_modules == ["layers"], "the caller's list stays the caller's"


# ---- round trips


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"temperature": 2.0},
        {"temperature": 1.5, "lambda_gkd": 0.1, "epochs": 1, "fp16": True, "output_dir": "a b"},
        {"use_peft": True, "peft_type": "ia3", "ia3_target_modules": ["k", "down"],
         "ia3_feedforward_modules": ["down"]},
        {"use_peft": True, "peft_type": "prompt", "prompt_tuning_init": "TEXT",
         "prompt_tuning_init_text": "Beantworte: «ja»"},
    ],
)  # fmt: skip
def test_round_trips_are_exact(keys: dict[str, Any], tmp_path: Path) -> None:
    made = config(**keys)
    made.save(tmp_path / "config.json")
    loaded = DistillationConfig.load(tmp_path / "config.json")
    for copy in (loaded, DistillationConfig.from_dict(made.to_dict()), pickle.loads(pickle.dumps(made))):
        assert copy == made
        assert eval(repr(copy)) == DistillationConfig(**made.to_dict()) == made
        assert copy.to_dict() == made.to_dict()
        for method in ("kd", "gkd"):
            assert copy.experiment(method) == made.experiment(method)
    assert all(type(value) in (str, int, float, bool, list, type(None)) for value in made.to_dict().values())
    stored = json.loads((tmp_path / "config.json").read_text("utf-8"))
    promised = {f.name for f in fields(DistillationConfig)} - {"epochs", "batch_size"}
    assert promised <= stored.keys() <= promised | {"left_to_method"}


def test_a_config_makes_its_folder_and_names_a_path_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    DistillationConfig("t", "s").save("~/config.json")
    assert DistillationConfig.load("~/config.json") == DistillationConfig.load(tmp_path / "config.json")
    config().save(tmp_path / "new" / "folder" / "c.json")
    assert DistillationConfig.load(tmp_path / "new" / "folder" / "c.json") == config()
    nothing: Any = None
    for call in (config().save, DistillationConfig.load):
        with pytest.raises(ArgumentError, match="filepath is a NoneType: give a path"):
            call(nothing)
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="cannot be written"):
        config().save(tmp_path / "file" / "c.json")


def test_what_is_left_to_the_method_is_a_list_of_fields() -> None:
    for wrong in (3, "temperature", ["seed"], [{}]):
        with pytest.raises(ArgumentError, match=r"left_to_method=.*\['temperature'\] or \[\]"):
            DistillationConfig.from_dict(NAMES | {"left_to_method": wrong})


def test_an_edited_file_says_what_it_says(tmp_path: Path) -> None:
    stored = config().to_dict() | {"temperature": 3.0}
    assert DistillationConfig.from_dict(stored).experiment("gkd").method.temperature == 3.0


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no field 'temprature'\. Did you mean temperature"):
        DistillationConfig.from_dict(NAMES | {"temprature": 1.0})
    with pytest.raises(ValueError, match=r"no field 'lamda_gkd'\. Did you mean lambda_gkd"):
        config().lamda_gkd = 0.5  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="teacher_model_name is missing"):
        DistillationConfig.from_dict({"student_model_name": "gpt2"})


@pytest.mark.parametrize(
    ("positional", "keys", "said"),
    [
        (("a", "b"), {"temprature": 1.0}, "no field 'temprature'. Did you mean temperature?"),
        (("a", "b"), {"alpha": 1.0}, "Did you mean kd_loss_weight?"),
        (("a", "b"), {"bf16": True}, "training_args=TrainingArguments(bf16=…)"),
        (("a", "b"), {"nothing_like_it": 1}, "There are: teacher_model_name, "),
        (("a",), {}, "lacks student_model_name: a hub name or a folder"),
        ((), {"temperature": 2.0}, "lacks teacher_model_name and student_model_name"),
        (("a", "b"), {"student_model_name": "c"}, "multiple values for argument 'student_model_name'"),
    ],
)
def test_calls_that_do_not_fit_say_so(positional: tuple[str, ...], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        DistillationConfig(*positional, **keys)
    assert said in str(caught.value)
    assert isinstance(caught.value, (ValueError, TypeError))
    assert isinstance(caught.value, TypeError), "as Python's own: who catches that still does"


ADAPTER_VALUES: dict[str, Any] = {
    "peft_type": "prefix",
    "lora_r": 8,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_modules": ["c_attn"],
    "lora_bias": "all",
    "num_virtual_tokens": 4,
    "prefix_projection": True,
    "encoder_hidden_size": 8,
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": "Hello",
    "ia3_target_modules": ["k"],
    "ia3_feedforward_modules": ["k"],
}


def test_every_field_of_an_adapter_wants_use_peft() -> None:
    """All fields that only adapters read: none is set and then not heeded, without a word."""
    names = [field.name for field in fields(DistillationConfig)]
    assert names[names.index("use_peft") + 1 :] == list(ADAPTER_VALUES)
    made = config()
    for name, value in ADAPTER_VALUES.items():
        with pytest.raises(ArgumentError, match=f"{name}=.*Give use_peft=True"):
            config(**{name: value})
        with pytest.raises(ArgumentError, match=f"{name}=.*Give use_peft=True"):
            DistillationConfig.from_dict(NAMES | {name: value})
        with pytest.raises(ArgumentError, match=f"{name}=.*Give use_peft=True first"):
            setattr(made, name, value)
        assert getattr(config(use_peft=False, **{name: value}), name) == value, "said outright: it waits"
    made.use_peft = True
    made.lora_r = 4
    assert made.experiment().peft.r == 4  # type: ignore[attr-defined]
    assert replace(made, use_peft=False).experiment().peft.name == "none"


def test_a_config_shows_each_value_once() -> None:
    shown = repr(config(epochs=5, temperature=3.0, use_peft=True))
    for field in fields(DistillationConfig):
        assert len(re.findall(rf"\b{field.name}=", shown)) == (field.name not in ("epochs", "batch_size")), (
            field.name
        )
    assert "num_train_epochs=5, " in shown
    assert eval(shown) == config(epochs=5, temperature=3.0, use_peft=True)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.json cannot be read"):
        DistillationConfig.load(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
        DistillationConfig.load(tmp_path / "bad.json")


# ---- ranges and types


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"temperature": float("inf")}, "temperature must be above 0 and finite, got inf"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0 and finite, got inf"),
        ({"temperature": float("nan")}, "temperature must be above 0 and finite, got nan"),
        ({"kd_loss_weight": 1.1}, "kd_loss_weight must lie in [0, 1], got 1.1"),
        ({"lambda_gkd": -0.1}, "lambda_gkd must lie in [0, 1], got -0.1"),
        ({"beta_gkd": 1.5}, "beta_gkd must lie in [0, 1], got 1.5"),
        ({"epochs": 0}, "num_train_epochs must be above 0, got 0"),
        ({"batch_size": 0}, "per_device_train_batch_size must be at least 1, got 0"),
        ({"learning_rate": 0}, "learning_rate must be above 0, got 0"),
        ({"max_length": 1}, "max_length must be at least 2, got 1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1"),
        ({"per_device_eval_batch_size": 0}, "per_device_eval_batch_size must be at least 1"),
        ({"seed": -1}, "seed must lie in"),
        ({"epochs": "3"}, "epochs='3' is a str: give a whole number"),
        ({"epochs": 1.5}, "epochs=1.5 is a float: give a whole number"),
        ({"fp16": 1}, "fp16=1 is a int: give True or False"),
        ({"teacher_model_name": None}, "teacher_model_name=None is a NoneType: give a text"),
        ({"use_peft": True, "peft_type": "lorra"}, "peft_type=lorra is unknown. Did you mean lora?"),
        ({"use_peft": True, "lora_r": 0}, "lora_r must be at least 1, got 0"),
        ({"use_peft": True, "lora_dropout": 1.0}, "lora_dropout must lie in [0, 1), got 1.0"),
        ({"use_peft": True, "lora_bias": "some"}, "lora_bias=some is unknown"),
        ({"use_peft": True, "peft_type": "prefix", "num_virtual_tokens": 0}, "num_virtual_tokens must be"),
        (
            {"use_peft": True, "peft_type": "ia3", "ia3_target_modules": ["k"]},
            "ia3_target_modules=['k'] with",
        ),
        ({"use_peft": True, "peft_type": "prompt", "prompt_tuning_init": "TEXT"}, "prompt_tuning_init=TEXT"),
    ],
)
def test_bad_values_are_refused_in_the_words_of_the_library(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        config(**keys)
    assert said in str(caught.value)
    assert "peft." not in str(caught.value)
    assert "trainer." not in str(caught.value)


def test_defaults_are_those_of_the_runner() -> None:
    assert composed("python run.py data=hf data.path=x model=gpt2").trainer == config().experiment().trainer
    for kind in KINDS:
        entry = ADAPTERS.get(kind)
        assert entry.config is not None
        assert config(use_peft=True, peft_type=kind).experiment().peft == entry.config()


def test_an_adapter_of_ones_own_keeps_what_no_flat_field_says(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class OwnConfig(LoraConfig):
        name: str = "lora"
        ranks: list[int] = dataclasses.field(default_factory=lambda: [4, 8])

    entry = replace(ADAPTERS.get("lora"), config=OwnConfig)
    monkeypatch.setattr(type(ADAPTERS), "get", lambda *_: entry)
    made = config(use_peft=True, lora_r=3).experiment().peft
    assert isinstance(made, OwnConfig)
    assert (made.r, made.ranks) == (3, [4, 8])


# ---- the command line


@pytest.mark.parametrize("method", sorted(METHODS.entries()))
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_the_command_composes_to_the_same_experiment(method: str, kind: str | None) -> None:
    made = config(
        temperature=1.5,
        kd_loss_weight=0.25,
        lambda_gkd=0.3,
        epochs=2,
        learning_rate=3e-4,
        max_new_tokens=32,
        max_length=64,
        seed=7,
        use_peft=kind is not None,
        peft_type=kind or "lora",
        lora_r=4,
        lora_target_modules=["q_proj", "v_proj"],
        num_virtual_tokens=5,
    )
    assert composed(made.command(method, data="rows")) == made.experiment(method, "rows")


@pytest.mark.parametrize(
    "text",
    ["it's", "a b", "a,b", "a=b", "{x}", "[1]", "null", "true", "12", "1e-3", "", "C:\\x\\", "é", "$a",
     "x: y", "\\'", "(a)", "~/x", "a#b", "../up",
     'a "b"', """it's "b" """, '\\"', "distil:a/b", "a  b", " a", "null x"],
)  # fmt: skip
def test_any_text_survives_shell_and_hydra(text: str) -> None:
    made = config(
        teacher_model_name=f"m{text}",
        output_dir=text or "out",
        use_peft=True,
        peft_type="prompt",
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=text,
    )
    assert composed(made.command("kd", data=f"d{text}")) == made.experiment("kd", f"d{text}")


def test_where_no_run_py_lies_the_installed_command_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(
        ROOT / "distil", tmp_path / "distil", ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
    shutil.copytree(ROOT / "conf", tmp_path / "distil" / "conf")
    code = "from distil.api.config import DistillationConfig as C; print(C('a', 'b').command('gkd', 'rows'))"
    said = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    made = DistillationConfig("a", "b")
    monkeypatch.chdir(ROOT)
    here = made.command("gkd", "rows")
    assert said.strip() == here.replace("python run.py ", "distil run ", 1) != here
    monkeypatch.chdir(tmp_path)  # the checkout, out of a folder that has no run.py
    assert made.command("gkd", "rows") == said.strip()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("distil:embedded/teacher", "distil:embedded/teacher"),  # nothing that shell or Hydra would misread
        ("my models/a", "'output_dir=my models/a'"),  # the shell alone
        ("a,b", "'output_dir=\"a,b\"'"),  # both
    ],
)
def test_the_command_quotes_no_more_than_it_must(path: str, said: str) -> None:
    assert f"{said} " in config(output_dir=path).command("kd")


def test_the_command_is_short_where_nothing_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert config().command("gkd", data="rows") == (
        "python run.py method=gkd data=hf seed=42 output_dir=./output model.teacher.path=gpt2-medium "
        "model.student.path=gpt2 data.path=rows eval.batch_size=8"
    )


def test_an_experiment_is_plain_values() -> None:
    def kinds(value: Any) -> set[type]:
        if isinstance(value, dict):
            return {kind for inner in value.values() for kind in kinds(inner)}
        return {type(value)}

    allowed = {str, int, float, bool, list, type(None)}
    assert kinds(asdict(config().experiment("gkd"))) <= allowed
