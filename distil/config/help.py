"""``--help`` for people, from the first comment line of every file in ``conf/``. No Hydra, no YAML parser."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

WIDTH = 80

_USAGE = """\
Distil a large language model into a small one, evaluate both, show the result.

  {program} [GROUP=OPTION] [GROUP.KEY=VALUE] [FLAG]

What most people want
  {program}
      the default: a tiny pair that ships with the runner, a minute or two
  {program} method=gkd method.lambda_gkd=0.3
      another objective, and one of its keys
  {program} model.teacher.path=A model.student.path=B data.train_file=F
      your own models (a folder or a hub name) on your own rows
  {program} -m method=kd,revkd,gkd,sft seed=0,1,2
      every combination, one run after the other
  {program} method=gkd --cfg job
      show the config with every key (--package trainer: a part), run nothing
"""

_FLAGS = """\
Keys
  name=, output_dir=  where the run goes: OUTPUT_DIR/NAME/...
  seed=               initial weights, order of the rows, sampling
  trainer.KEY=        any field of transformers.TrainingArguments

Flags (Hydra's own: --hydra-help)
  -m, --multirun      sweep over values separated by commas
  --cfg job           show the config; with --package GROUP, a part of it
  --config-dir DIR    a folder with options of your own, laid out like conf/
  --info defaults     where every value comes from
  --shell-completion install=bash

Files of Python that add methods, adapters, data or metrics: run.plugins=[A,B]
or DISTIL_PLUGINS=A:B. The same command again goes on with an unfinished run.
"""

_WITHOUT_OPTIONS_OF_ITS_OWN = ("accelerate", "recipe", "tuned", "tuned_adapter", "hydra")


def conf_folder() -> Path:
    """The config files: inside the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    # First inside: beside an installed package, another project's conf/ may lie.
    return inside if inside.is_dir() else package.parent / "conf"


def summary(file: Path) -> str:
    """The first comment line of ``file`` that is not a directive for Hydra; empty where there is none."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""


def options(folder: Path) -> dict[str, dict[str, str]]:
    """Group -> option -> its summary line, for the groups of ``folder`` that a user chooses from."""
    return {
        group.name: {file.stem: summary(file) for file in sorted(group.glob("*.yaml"))}
        for group in sorted(folder.iterdir())
        if group.is_dir() and group.name not in _WITHOUT_OPTIONS_OF_ITS_OWN and any(group.glob("*.yaml"))
    }


def defaults(folder: Path) -> dict[str, str]:
    """Group -> option in the defaults list of ``config.yaml``, in its order."""
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - (\w+): (\w+)$", text, flags=re.MULTILINE))


def help_text(program: str, folders: list[Path]) -> str:
    """The help for people: usage, groups with their options, flags. Fits 80 columns.

    ``folders`` are the config folders, ours first, then those of ``--config-dir``.
    """
    chosen = defaults(folders[0])
    groups: dict[str, dict[str, str]] = {}
    for folder in folders:
        for group, found in options(folder).items():
            groups.setdefault(group, {}).update(found)
    order = [*(g for g in chosen if g in groups), *(g for g in groups if g not in chosen)]
    lines = [_USAGE.format(program=program), "Groups and their options (* is the default)"]
    for group in order:
        lines.append(f"  {group}")
        lines += [_option(name, text, chosen.get(group) == name) for name, text in groups[group].items()]
    return "\n".join([*lines, "", _FLAGS])


def _option(name: str, text: str, default: bool) -> str:
    label = f"  {'*' if default else ' '} {name}"
    return textwrap.fill(
        text or name,
        WIDTH,
        initial_indent=f"{label:<19} ",
        subsequent_indent=" " * 20,
        break_on_hyphens=False,
    )
