"""Messages about a config that does not compose."""

from __future__ import annotations

import pytest

from distil.config.explain import unknown_option


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
