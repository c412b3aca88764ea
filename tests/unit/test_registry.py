"""Registries: what a plugin registers is known, whatever its file is called; nothing is replaced unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest

from distil.methods.kd import KDConfig
from distil.metrics.base import METRICS
from distil.registry import Registry, load_plugins, nearest, unknown_name
from distil.types import InputError

PLUGIN = """
from distil.metrics.base import Metric, register_metric


@register_metric("{name}")
class {kind}(Metric):
    values = {{}}

    def compute(self, observed):
        return {{}}
"""


@pytest.fixture(autouse=True)
def metrics_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS.entries()))


def plugin(folder: Path, name: str, kind: str = "Mine") -> str:
    folder.mkdir()
    (folder / "mine.py").write_text(PLUGIN.format(name=name, kind=kind), encoding="utf-8")
    return str(folder / "mine.py")


def test_two_plugins_of_one_file_name(tmp_path: Path) -> None:
    load_plugins([plugin(tmp_path / "a", "first"), plugin(tmp_path / "b", "second")])
    assert {"first", "second"} <= METRICS.entries().keys()


def test_a_plugin_loaded_twice_is_one(tmp_path: Path) -> None:
    path = plugin(tmp_path / "a", "third")
    load_plugins([path])
    load_plugins([path, str(tmp_path / "a")])
    assert METRICS.get("third").name == "third"


def test_no_plugin_replaces_what_is_there(tmp_path: Path) -> None:
    path = plugin(tmp_path / "a", "length", kind="Length")
    for _ in range(2):  # a file that failed once fails again
        with pytest.raises(InputError, match=r"eval\.metrics=length is registered twice"):
            load_plugins([path])


def test_a_name_is_said_once_more_by_the_dataclass_of_its_keys() -> None:
    registry: Registry[type[int]] = Registry("thing", "distil.metrics")
    with pytest.raises(InputError, match=r"thing=one .*KDConfig, whose own name is 'kd'.* must be 'one' too"):
        registry.register("one", KDConfig)(int)


def test_the_same_thing_again_is_no_conflict() -> None:
    registry: Registry[type[int]] = Registry("thing", "distil.metrics")
    registry.register("one")(int)
    registry.register("one")(int)
    with pytest.raises(InputError, match="thing=one is registered twice"):
        registry.register("one")(bool)


def test_the_nearest_name_whatever_its_case() -> None:
    assert nearest("GDK", ["gkd", "kd", "sft"]) == "gkd"
    assert nearest("instruction", ["Instruction", "id"]) == "Instruction"
    assert nearest("kd", ["KD", "kd"]) == "kd"
    assert nearest("mlflow", ["wandb", "none"]) is None
    assert unknown_name("method", "KD", ["kd"]) == "method=KD is unknown. Did you mean kd? Known: kd."
    begun = unknown_name("experiment", "Compare", ["b_compare", "compare_a", "compare_c"])
    assert "Did you mean compare_a or compare_c?" in begun
    optimizers = ["adamw_torch", "adamw_torch_fused", "adalomo", "adamw_8bit"]
    for short in ("adam", "adamw", "AdamW"):
        said = unknown_name("optim", short, optimizers)
        assert "Did you mean adamw_torch or adamw_torch_fused or adamw_8bit?" in said
        assert said.endswith("Known: adalomo, adamw_8bit, adamw_torch, adamw_torch_fused.")
    assert "Did you mean kd?" in unknown_name("method", "k", ["kd", "keep"]), "one letter begins too much"
