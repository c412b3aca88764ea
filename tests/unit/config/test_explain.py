"""Messages about a config that does not compose."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from distil.adapters.base import ADAPTERS
from distil.cli import main
from distil.config.explain import unknown_flag, unknown_key, unknown_option, unparsable
from distil.config.schema import ExperimentConfig, StudentConfig, TeacherConfig
from distil.config.store import schemas
from distil.config.suggestions import NO_KEY, SYNONYMS


@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ("hydra/launcher/joblib", "hydra-joblib-launcher"),
        ("hydra/launcher/submitit_slurm", "hydra-submitit-launcher"),
        ("hydra/sweeper/optuna", "hydra-optuna-sweeper"),
    ],
)
def test_a_launcher_that_is_not_installed_is_named_with_its_package(missing: str, package: str) -> None:
    message = unknown_option(missing, ["basic"], "", {})
    assert f"pip install {package}" in message
    assert missing.replace("/", "=").replace("hydra=", "hydra/") in message


def test_a_launcher_that_nobody_knows_is_a_name_mistyped() -> None:
    assert "Did you mean basic?" in unknown_option("hydra/launcher/basik", ["basic"], "", {})


@pytest.mark.parametrize(
    ("peft", "given", "meant"),
    [
        ("lora", "rank", "r"),
        ("qlora", "lora_r", "r"),
        ("qlora", "load_in_8bit", "bits"),
        ("prefix", "prefix_length", "num_virtual_tokens"),
        ("ia3", "targets", "target_modules"),
    ],
)
def test_an_adapters_key_under_another_tools_name(peft: str, given: str, meant: str) -> None:
    config = ADAPTERS.get(peft).config
    assert config is not None
    said = unknown_key(f"peft.{given}", "4", config.__name__, {f"peft/{peft}": config})
    assert said.startswith(f"peft.{given}=4 is unknown")
    assert f" Did you mean peft.{meant}?" in said


def test_the_adapters_that_have_a_key_are_named_together() -> None:
    known = {name: ADAPTERS.get(name).config for name in ("none", "lora", "dora", "prompt", "qlora")}
    schemas = {f"peft/{name}": config for name, config in known.items() if config is not None}
    said = unknown_key("peft.r", "8", schemas["peft/none"].__name__, schemas)
    assert " It is a key of peft=lora, dora or qlora." in said


def test_a_name_is_not_suggested_where_the_adapter_has_no_such_key() -> None:
    config = ADAPTERS.get("prompt").config
    assert config is not None
    assert "Did you mean" not in unknown_key("peft.rank", "4", config.__name__, {"peft/prompt": config})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("experimnt", "experiment"),
        ("debg", "debug"),
        ("sweeep", "sweep"),
        ("Method", "method"),
        ("trainer/max_steps", "trainer.max_steps"),
        ("teacher", "model.teacher.path"),
        ("alpha", "method.kd_loss_weight"),
        ("batch_size", "trainer.per_device_train_batch_size"),
        ("exp_name", "name"),
        ("outputs", "output_dir"),
        ("wandb_project", "tracker.project"),
        ("num_workers", "trainer.dataloader_num_workers"),
        ("beta", "method.mixture_weight (with method=gkd)"),
        ("lora_r", "peft.r (with peft=dora, lora or qlora)"),
    ],
)
def test_a_group_or_a_key_without_its_group(typed: str, meant: str) -> None:
    """Groups that have no default, such as ``experiment``, are known as well as those that do."""
    said = unknown_key(typed, "x", ExperimentConfig.__name__, schemas())
    assert said.startswith(
        f"{typed}=x is unknown. Did you mean {meant}? Groups and keys: compare, data, debug,"
    )


@pytest.mark.parametrize(
    ("flag", "value", "written"),
    [
        ("--max_steps", "10", "trainer.max_steps=10"),
        ("--max-steps", "10", "trainer.max_steps=10"),
        ("--trainer.max_steps", "10", "trainer.max_steps=10"),
        ("--method", "gkd", "method=gkd"),
        ("--experiment", "lambda", "experiment=lambda"),
        ("--lr", "1e-4", "trainer.learning_rate=1e-4"),
        ("--bf16", "", "trainer.bf16=VALUE"),
        ("--resume", "", "run.resume=VALUE"),
        ("--output_dir", "x", "output_dir=x"),
        ("--train_file", "my rows.csv", "'data.train_file=my rows.csv'"),
        ("--model_name_or_path", "gpt2", "model.student.path=gpt2"),
        ("--max_step", "10", "trainer.max_steps=10"),
        ("--beta", "0.5", "method.mixture_weight=0.5 (with method=gkd)"),
    ],
)
def test_a_flag_of_other_programs_is_told_as_it_is_written_here(flag: str, value: str, written: str) -> None:
    assert unknown_flag(flag, value, schemas()) == f"{flag} is no flag: keys have no dashes. Write {written}."


def test_a_flag_for_what_the_runner_sets_itself_and_one_that_nothing_is_like() -> None:
    assert "choose a tracker: tracker=wandb" in unknown_flag("--report_to", "wandb", schemas())
    assert "keys are written key=value" in unknown_flag("--xyzzy", "", schemas())
    assert unknown_flag("--load_in_4bit", "", schemas()).startswith(
        "--load_in_4bit is no flag, and there is no"
    )


def test_a_name_that_nothing_is_like_may_be_one_of_a_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, may in (
        ("method=jeffreys", True),
        ("eval.metrics=[stops]", True),
        ("data=elsewhere", True),
        ("method=gdk", False),
        ("tracker=mlflow", False),
    ):
        assert main(["run", typed]) == 2
        assert ("run.plugins=[FILE.py]" in capsys.readouterr().err) == may, typed


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("method.alpha", "Did you mean method.kd_loss_weight?"),
        ("method.beta", "Did you mean method.mixture_weight (with method=gkd)?"),
        ("method.lmbda", "method.lambda_gkd, with method=gkd, is that of the data set's: 1 - lmbda."),
        ("run.seed", "Did you mean seed or teacher_cache.seed?"),
        ("run.output_dir", "Did you mean output_dir?"),
        ("run.name", "Did you mean name?"),
        ("eval.rows", "Did you mean data.max_eval_rows?"),
        ("model.path", "Did you mean model.teacher.path or model.student.path?"),
        ("model.name_or_path", "Did you mean model.student.path?"),
        ("model.teacher.load_in_4bit", "Did you mean model.teacher.quantization?"),
        ("model.student.load_in_4bit", "peft=qlora holds a student in 4 bits"),
        ("model.student.num_layers", "Did you mean model.student.keep_layers?"),
        ("peft.rank", "Did you mean peft.r (with peft=dora, lora or qlora)?"),
        ("device", "CUDA_VISIBLE_DEVICES=1"),
        ("tracker.mode", "WANDB_MODE=offline"),
        ("wandb.mode", "WANDB_MODE=offline"),
        ("experiment.seed", "experiment=NAME chooses one"),
        ("model.teacher", "as in model.teacher.path=x."),
    ],
)
def test_what_people_look_for_among_the_keys_is_told(
    typed: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"{typed}=x", "--cfg", "job"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {typed}=x")
    assert told in said


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["model.name=gpt2"], "name, and the models stay those of model=embedded. Write model=NAME"),
        (["model=gpt2", "model.name=mine"], "the models stay those of model=gpt2"),
        (["model=embedded_pruned", "model.name=embedded"], "the models stay those of model=embedded_pruned"),
        (["model.student.init=random", "model.name=gpt2"], "the models stay those of model=embedded"),
        (
            ["tracker=wandb", "tracker.name=mine"],
            "chooses no tracker. Write tracker=NAME; name= names the run.",
        ),
        (["data=hf", "data.path=x", "data.name=mrpc"], "hub is data.subset=mrpc."),
    ],
)
def test_a_name_that_is_another_one_in_another_program(
    typed: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *typed]) == 2
    assert told in capsys.readouterr().err


def test_a_name_may_be_repeated_and_models_of_ones_own_have_a_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is refused is the teacher that is lacking, not a name."""
    keys = ["tracker.name=none", "tracker=none", "method.name=kd", "model.name=mine"]
    assert main(["run", *keys, f"model.student.path={tmp_path}", f"output_dir={tmp_path}/out"]) == 2
    told = capsys.readouterr().err
    assert ".name" not in told
    assert told.startswith("error: model.teacher.path=null")


def test_models_of_an_experiment_of_ones_own_have_a_label_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\nmodel: {{teacher: {{path: {tmp_path}/t}}, student: {{path: {tmp_path}/s}}}}\n",
        encoding="utf-8",
    )
    words = ["--config-dir", str(tmp_path), "experiment=mine", f"output_dir={tmp_path}/out"]
    for more in (["model.name=mine"], ["model.name=embedded"]):
        assert main(["run", *words, *more]) == 2
        assert capsys.readouterr().err.startswith(f"error: model.teacher.path={tmp_path}/t")
    assert main(["run", "model.name=embedded", "trainer.learning_rate=-1"]) == 2
    assert "model.name" not in capsys.readouterr().err, "its own"


def test_every_synonym_stands_for_a_key() -> None:
    keys = {field.name for field in fields(ExperimentConfig)}
    for option, kind in schemas().items():
        keys |= {f"{option.partition('/')[0]}.{field.name}" for field in fields(kind)}
    for who, kind in (("teacher", TeacherConfig), ("student", StudentConfig)):
        keys |= {f"model.{who}.{field.name}" for field in fields(kind)}
    for group, names in SYNONYMS.items():
        full = {name if "." in name else f"{group}.{name}".lstrip(".") for name in names.values()}
        assert full <= keys
        assert not {f"{group}.{name}".lstrip(".") for name in names} & keys


def test_no_key_is_told_of_what_is_one() -> None:
    for path in NO_KEY:
        assert "no such key" in unknown_key(path, "x", ExperimentConfig.__name__, schemas())


@pytest.mark.parametrize(
    ("missing", "options", "told"),
    [
        ("model/Qwen/Qwen2.5", ["qwen"], ["model=Qwen/Qwen2.5 is", "model.student.path=Qwen/Qwen2.5."]),
        ("data/./rows.jsonl", ["jsonl"], ["data=./rows.jsonl is", "data.train_file=./rows.jsonl"]),
        ("data/owner/set", ["hf"], ["data=owner/set is", "data=hf data.path=owner/set."]),
        ("data/csv", ["hf"], ["data=csv is unknown.", "by its path", "data.train_file=FILE.csv."]),
        ("data/JSON", ["hf"], ["data.train_file=FILE.json."]),
        ("method/KD", ["kd", "gkd"], ["method=KD is unknown. Did you mean kd?"]),
        ("experiment/compare-method", ["compare_methods"], ["Did you mean compare_methods?"]),
    ],
)
def test_an_option_that_is_none(missing: str, options: list[str], told: list[str]) -> None:
    """A model or a file that is given to its group as if it were an option is told its key."""
    said = unknown_option(missing, options, "", {})
    for words in told:
        assert words in said
    assert f"Known: {', '.join(sorted(options))}." in said


@pytest.mark.parametrize(
    ("option", "typed", "meant"),
    [
        ("embedded", "file", "data.train_file"),
        ("jsonl", "train", "data.train_file"),
        ("jsonl", "test_size", "data.validation_fraction"),
        ("jsonl", "prompt", "data.prompt_column or data.prompt_template"),
        ("jsonl", "answer_column", "data.response_column"),
        ("hf", "split", "data.validation_fraction"),
    ],
)
def test_a_key_of_data_under_another_tools_name(option: str, typed: str, meant: str) -> None:
    known = schemas()
    said = unknown_key(f"data.{typed}", "x", known[f"data/{option}"].__name__, known)
    assert f"data.{typed}=x is unknown. Did you mean {meant}?" in said
    names = {f"data.{field.name}" for field in fields(known["data/jsonl"])}
    assert names.issuperset(meant.split(" or ")), "what is meant is there"


def test_an_environment_variable_among_the_keys_is_told_where_it_stands() -> None:
    said = unknown_key("HF_HUB_OFFLINE", "1", ExperimentConfig.__name__, schemas())
    assert said.endswith("stands before the command: HF_HUB_OFFLINE=1 python run.py …")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("~/rows.jsonl", "the ~ in it"),
        ("データ.jsonl", "the デ in it"),
        ("o'brien.csv", "the ' in it"),
        ("a&b.csv", "the & in it"),
        ('6" pipes.csv', 'the " in it'),
        ("rows (1).csv", "mismatched input '.'"),
    ],
)
def test_a_text_that_wants_quotes_is_told_what_is_wrong_and_written_as_it_works(
    value: str, fault: str
) -> None:
    with pytest.raises(OverrideParseException) as refused:
        OverridesParser.create().parse_overrides([f"data.train_file={value}"])
    told = unparsable(f"data.train_file={value}", refused.value.message)
    assert f"cannot be read ({fault}" in told
    (written,) = shlex.split(told.partition("inside quotes: ")[2].removesuffix("."))
    (override,) = OverridesParser.create().parse_overrides([written])
    assert override.value() == value
