"""What the command line says before Hydra sees it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from distil.config.command_line import (
    check_arguments,
    expand,
    flags_first,
    plugin_paths,
    split_override,
    value_of,
)
from distil.types import InputError


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        (["experiment=ample_rows"], ["+experiment=ample_rows"]),
        (["+experiment=ample_rows", "debug=overfit"], ["+experiment=ample_rows", "+debug=overfit"]),
        (["model.teacher.path=A"], ["model=custom", "model.teacher.path=A"]),
        (["model=gpt2", "model.teacher.path=A"], ["model=gpt2", "model.teacher.path=A"]),
        (["experiment=x", "model.teacher.path=A"], ["+experiment=x", "model.teacher.path=A"]),
        (["data.train_file=F"], ["data=jsonl", "data.train_file=F"]),
        (["data=hf", "data.path=F"], ["data=hf", "data.path=F"]),
        (["data.train_file=~/my rows.csv"], ["data=jsonl", 'data.train_file="~/my rows.csv"']),
        (
            ["data=jsonl", "data.train_file=~/a.csv,b.csv,~/c.csv"],
            ["data=jsonl", 'data.train_file="~/a.csv",b.csv,"~/c.csv"'],
        ),
        (["data=jsonl", 'data.train_file="~/a.csv"'], ["data=jsonl", 'data.train_file="~/a.csv"']),
        (["~sweep", "name=a~b"], ["~sweep", "name=a~b"]),
        (["model.student.overrides.hidden_size=8"], ["++model.student.overrides.hidden_size=8"]),
        (["model.student.overrides={hidden_size:8}"], ["++model.student.overrides={hidden_size:8}"]),
        (["method=kd", "seed=1,2"], ["method=kd", "seed=1,2"]),
    ],
)
def test_expand(given: list[str], expanded: list[str]) -> None:
    assert expand(given) == expanded


def test_flags_and_overrides_in_any_order() -> None:
    arguments = ["method=kd", "--cfg", "job", "seed=1", "--info", "data=hf", "-m", "--config-dir=c", "name=x"]
    assert flags_first(arguments) == (
        ["--cfg", "job", "--info", "-m", "--config-dir=c"],
        ["method=kd", "seed=1", "data=hf", "name=x"],
    )


def test_overrides_with_signs_packages_and_any_value() -> None:
    assert split_override("++model.student.overrides.a=[1,2]") == ("model.student.overrides.a", "[1,2]")
    assert split_override("name=a=b") == ("name", "a=b")
    assert split_override("--cfg") is None
    assert value_of("seed", ["seed=1", "+seed=2"]) == "2"


def test_plugins_of_environment_and_argument(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTIL_PLUGINS", os.pathsep.join(["a.py", "folder"]))
    assert plugin_paths(["run.plugins=[b.py, 'c d.py']"]) == ["a.py", "folder", "b.py", "c d.py"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plugin_paths(["run.plugins=['~/b.py']"])[2:] == [str(tmp_path / "b.py")]
    monkeypatch.delenv("DISTIL_PLUGINS")
    assert plugin_paths(["method=kd"]) == []


@pytest.mark.parametrize(
    "argument",
    [
        "tracker.api_key=12345",
        "+trainer.hub_token=abc",
        "model.teacher.token=abc",
        "tracker.password=xyzzy",
        "name=hf_" + "a" * 30,
        "data.path=https://me:word@host/rows.jsonl",
        "data.path=https://host/rows.jsonl?token=word",
        "trainer.lr_scheduler_kwargs={a: 1, api_key: word}",
        "--config-dir=hf_" + "a" * 30,
        "hf_" + "a" * 30,
    ],
)
def test_secrets_are_refused_and_not_repeated(argument: str) -> None:
    with pytest.raises(InputError, match="environment") as caught:
        check_arguments([argument])
    assert (argument.partition("=")[2] or argument) not in str(caught.value)


def test_a_secret_of_the_environment_is_refused_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "correct-horse-battery")
    with pytest.raises(InputError, match=r"name=… is a secret"):
        check_arguments(["name=my-correct-horse-battery"])


@pytest.mark.parametrize("flag", ["--cfg", "--config-dir", "-cn"])
def test_a_flag_without_its_value(flag: str) -> None:
    with pytest.raises(InputError, match=f"{flag} wants a value"):
        check_arguments(["method=kd", flag])


@pytest.mark.parametrize(
    "argument",
    [
        "eval.max_new_tokens=3",
        "name=sk-small",
        "--config-dir=my_secret_folder",
        "folder/of_secret_things",
        "seed=-1",
        "model.student.overrides={eos_token: x}",
        "--cfg=job",
        "--config-dir=folder/no_secret_here/conf",
        "folder/no_secret_here/conf",
        "-m",
    ],
)
def test_what_is_no_secret_and_no_unknown_flag_passes(argument: str) -> None:
    check_arguments([argument])


@pytest.mark.parametrize(
    ("arguments", "flag", "value"),
    [
        (["--max_steps", "10"], "--max_steps", "10"),
        (["seed=1", "--max_steps=10"], "--max_steps", "10"),
        (["--bf16", "seed=1"], "--bf16", ""),
        (["--bf16", "--cfg", "job"], "--bf16", ""),
        (["--bf16"], "--bf16", ""),
        (["--run_name", "hf_" + "a" * 30], "--run_name", ""),
    ],
)
def test_an_unknown_flag_is_told_with_its_value(arguments: list[str], flag: str, value: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"<{flag}> <{value}>")):
        check_arguments(arguments, lambda flag, value: f"<{flag}> <{value}>")


@pytest.mark.parametrize("argument", ["--hub_token", "--hub-token=abc", "--wandb_api_key"])
def test_a_flag_for_a_secret_is_refused_as_one(argument: str) -> None:
    with pytest.raises(InputError, match="is a secret") as caught:
        check_arguments([argument, "abc"])
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(("typed", "meant"), [("--multirum", "--multirun"), ("--config_dir", "--config-dir")])
def test_a_flag_that_is_mistyped(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"{typed} is no flag. Did you mean {meant}"):
        check_arguments([typed])
