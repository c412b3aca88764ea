"""Messages about a config that does not compose."""

from __future__ import annotations

import pytest

from distil.adapters.base import ADAPTERS
from distil.config.explain import unknown_key, unknown_option


@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ("hydra/launcher/joblib", "hydra-joblib-launcher"),
        ("hydra/launcher/submitit_slurm", "hydra-submitit-launcher"),
        ("hydra/sweeper/optuna", "hydra-optuna-sweeper"),
    ],
)
def test_a_launcher_that_is_not_installed_is_named_with_its_package(missing: str, package: str) -> None:
    message = unknown_option(missing, ["basic"], "")
    assert f"pip install {package}" in message
    assert missing.replace("/", "=").replace("hydra=", "hydra/") in message


def test_a_launcher_that_nobody_knows_is_a_name_mistyped() -> None:
    assert "Did you mean basic?" in unknown_option("hydra/launcher/basik", ["basic"], "")


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


def test_a_name_is_not_suggested_where_the_adapter_has_no_such_key() -> None:
    config = ADAPTERS.get("prompt").config
    assert config is not None
    assert "Did you mean" not in unknown_key("peft.rank", "4", config.__name__, {"peft/prompt": config})
