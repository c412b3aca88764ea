"""config.yaml of a run, read back: the very config that was run, for every option of every group."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from distil.config.help import conf_folder
from distil.config.saved import saved_config
from distil.config.store import register_schemas, typed
from distil.types import InputError

FILE = Path("run/config.yaml")
OPTIONS = [
    f"{group.name}={file.stem}"
    for group in sorted(conf_folder().iterdir())
    if group.name in ("method", "model", "peft", "data", "eval", "rollouts", "tracker", "trainer")
    for file in sorted(group.glob("*.yaml"))
]


@pytest.mark.parametrize("option", OPTIONS)
def test_what_was_written_is_read(option: str) -> None:
    register_schemas()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = typed(compose("config", [option, "model.student.keep_layers=[0,2]", "seed=7"]), [])
    text = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
    read = saved_config(FILE, yaml.safe_load(text))
    assert read == config
    for group in ("method", "peft", "data"):
        assert type(getattr(read, group)) is type(getattr(config, group))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "names no method"),
        ({"method": {"name": "kdd"}}, "Did you mean kd"),
        ({"method": {"name": "kd", "sharpness": 1}}, "method.sharpness is unknown"),
        ({"method": {"name": "kd", "temperature": -1}}, "method.temperature must be above 0"),
        ({"method": {"name": "kd", "temperature": "hot"}}, "does not fit this version"),
        ({"method": "kd"}, "names no method"),
        ({"run": {"plugins": ["nowhere.py"]}}, "run.plugins=[nowhere.py]"),
        ({"model": {"name": "x", "teacher": {"pat": "y"}}}, "model.teacher.pat is unknown"),
        ({"model": {"name": "x", "student": {"keep_layers": [2, 1]}}}, "model.student.keep_layers"),
        ({"sed": 1}, "sed is unknown"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, object], words: str) -> None:
    whole: dict[str, object] = {
        "method": {"name": "kd"},
        "data": {"name": "jsonl"},
        "peft": {"name": "lora"},
    }
    with pytest.raises(InputError) as caught:
        saved_config(FILE, {**(whole if values else {}), **values})
    assert words in str(caught.value)
    assert str(FILE) in str(caught.value)


def test_no_code_is_run_because_a_run_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the run or beside it (both came in one archive); a path that the environment names was asked for."""
    register_schemas()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        values = asdict(typed(compose("config", []), []))
    run = tmp_path / "got" / "run1"
    inside, beside = run / "inner" / "evil.py", tmp_path / "got" / "evil beside.py"
    inside.parent.mkdir(parents=True)
    for plugin in (inside, beside):
        plugin.write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()", encoding="utf-8")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "mine.py").write_text("", encoding="utf-8")
    monkeypatch.setenv("DISTIL_PLUGINS", "mine.py")
    monkeypatch.setattr("sys.argv", ["/usr/bin/distil", "generate", "got/run1", "--prompt", "a b"])
    monkeypatch.chdir(tmp_path)
    for path in (
        str(inside),
        "got/run1/inner",
        "link/inner/evil.py",
        str(beside),
        "got/evil beside.py",
        "got",
    ):
        values["run"]["plugins"] = ["mine.py", path]
        with pytest.raises(InputError) as caught:
            saved_config(run / "config.yaml", values)
        assert f"run.plugins=[{path}]" in str(caught.value)
        told = shlex.split(str(caught.value).splitlines()[-1])
        assert told == [f"DISTIL_PLUGINS=mine.py:{path}", "distil", "generate", "got/run1", "--prompt", "a b"]
    assert not (tmp_path / "canary").exists()
    monkeypatch.setenv("DISTIL_PLUGINS", f"mine.py:{path}")
    saved_config(run / "config.yaml", values)
    assert (tmp_path / "canary").exists()


def test_a_plugin_that_has_moved_is_named_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_schemas()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        values = asdict(typed(compose("config", []), []))
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "apart.py").write_text("", encoding="utf-8")
    for there, here in (("apart.py", "moved/apart.py"), ("moved", "moved")):
        values["run"]["plugins"] = [f"/nowhere/{there}"]
        monkeypatch.delenv("DISTIL_PLUGINS", raising=False)
        if there == "apart.py":
            with pytest.raises(InputError, match=r"DISTIL_PLUGINS=/nowhere/apart\.py"):
                saved_config(FILE, values)
        monkeypatch.setenv("DISTIL_PLUGINS", str(tmp_path / here))
        saved_config(FILE, values)
