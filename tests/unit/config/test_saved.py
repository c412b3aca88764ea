"""config.yaml of a run, read back: the very config that was run, for every option of every group."""

from __future__ import annotations

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
        ({"run": {"plugins": ["nowhere.py"]}}, "run.plugins=nowhere.py"),
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


def test_code_that_came_with_a_run_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens somebody else's run has asked for none; a path that the environment names was asked for."""
    register_schemas()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        values = asdict(typed(compose("config", []), []))
    plugin, run = tmp_path / "run" / "inner" / "evil.py", tmp_path / "run"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()", encoding="utf-8")
    (tmp_path / "beside").symlink_to(run)
    monkeypatch.delenv("DISTIL_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)
    for path in (str(plugin), "run/inner", "beside/inner/evil.py", "run/../beside/inner"):
        values["run"]["plugins"] = [path]
        with pytest.raises(InputError, match=r"lies in the run's own folder"):
            saved_config(run / "config.yaml", values)
    assert not (tmp_path / "canary").exists()
    values["run"]["plugins"] = [str(plugin)]
    monkeypatch.setenv("DISTIL_PLUGINS", str(plugin))
    saved_config(run / "config.yaml", values)
    assert (tmp_path / "canary").exists()
