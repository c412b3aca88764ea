"""The help, and where the config files are found: in a checkout and in an installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from distil.config.help import WIDTH, conf_folder, defaults, help_text, options, summary

ROOT = Path(__file__).resolve().parents[3]


def test_checkout_uses_its_own_conf() -> None:
    assert conf_folder() == ROOT / "conf"


def test_installed_package_uses_the_conf_inside_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(ROOT / "distil", site / "distil", ignore=shutil.ignore_patterns("__pycache__", "assets"))
    shutil.copytree(ROOT / "conf", site / "distil" / "conf")
    (site / "conf").mkdir()  # another project's, beside the package
    code = (
        "import sys; from distil.cli import main; sys.exit(main(['run', '--cfg', 'job', 'name=installed']))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "name: installed" in result.stdout
    assert not list(tmp_path.glob("outputs")), "showing a config leaves nothing"


def test_every_file_opens_with_its_line() -> None:
    for file in sorted(conf_folder().rglob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        first = next(line for line in lines if not line.startswith("# @"))
        assert first.startswith("# "), f"{file} must open with a comment that says what it is"
        assert summary(file)


def test_help_names_every_option_and_marks_the_defaults() -> None:
    text = help_text("python run.py", [conf_folder()])
    assert max(map(len, text.splitlines())) <= WIDTH
    chosen = defaults(conf_folder())
    for group, found in options(conf_folder()).items():
        section = text[text.index(f"\n  {group}\n") :]
        for name, line in found.items():
            mark = "*" if chosen.get(group) == name else " "
            assert f"\n  {mark} {name} " in section, "a space after the longest name too"
            assert line.split()[0] in section


def test_help_shows_options_of_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# My objective\n", encoding="utf-8")
    assert "    mine            My objective" in help_text("python run.py", [conf_folder(), tmp_path])
