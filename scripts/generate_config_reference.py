"""Write docs/configuration.md: every config key with type, default and meaning, read from the dataclasses.

python scripts/generate_config_reference.py            # write
python scripts/generate_config_reference.py --check    # exit 1 where the page is out of date
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from distil.adapters.base import ADAPTERS
from distil.config import schema
from distil.config.trainer import OURS
from distil.data.base import DATA, ColumnsConfig
from distil.methods.base import METHODS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every key, made from the code by `make docs`. Give one as `group.key=value`. `python run.py … --cfg job` shows
the config that a command composes, `python run.py --help` the options of each group. `???` must be given.
"""
GROUPS = {
    "rollouts": schema.RolloutConfig,
    "run": schema.RunConfig,
    "eval": schema.EvalConfig,
    "tracker": schema.TrackerConfig,
}


def keys(config: type[Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, default, meaning) of the fields that a dataclass defines itself, in order."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(tree, ast.ClassDef)
    following = [*tree.body[1:], ast.Pass()]
    for node, after in zip(tree.body, following, strict=True):
        if not isinstance(node, ast.AnnAssign) or "ClassVar" in ast.unparse(node.annotation):
            continue
        doc = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            doc = " ".join(str(after.value.value).split())
        default = "" if node.value is None else ast.unparse(node.value)
        default = default.removeprefix("field(default_factory=").removesuffix(")").removeprefix("lambda: ")
        default = {"MISSING": "???", "list": "[]", "dict": "{}"}.get(default, default)
        yield ast.unparse(node.target), ast.unparse(node.annotation), default.replace("None", "null"), doc


def table(config: type[Any], prefix: str, skip: tuple[str, ...] = ("name",)) -> str:
    """A Markdown table of a dataclass's own keys; empty where it defines none."""
    rows = [
        f"| `{prefix}{name}` | {kind.replace('|', 'or').replace('None', 'null')} | `{default}` | "
        f"{doc.replace('``', '`')} |"
        for name, kind, default, doc in keys(config)
        if name not in skip and not default.startswith(config.__module__)
    ]
    return "\n".join(["| key | type | default | |", "|---|---|---|---|", *rows, ""]) if rows else ""


def first_line(thing: Any) -> str:
    """The first sentence of a docstring."""
    return (inspect.getdoc(thing) or "").replace("``", "`").split("\n\n")[0].replace("\n", " ")


def section(title: str, config: type[Any], prefix: str, level: int = 2) -> str:
    """A heading, what the dataclass says of itself, its keys."""
    assert is_dataclass(config)
    return f"{'#' * level} {title}\n\n{first_line(config)}\n\n{table(config, prefix)}"


def page() -> str:
    """The whole page."""
    root = [key for key in keys(schema.ExperimentConfig) if key[0] in ("name", "seed", "output_dir")]
    parts = [HEAD, "## The root\n", "| key | type | default | |\n|---|---|---|---|"]
    parts[-1] += "".join(
        f"\n| `{name}` | {kind} | `{default}` | {doc.replace('``', '`')} |"
        for name, kind, default, doc in root
    )
    parts[-1] += "\n"
    parts.append(section("method", schema.MethodConfig, "method."))
    for name, entry in METHODS.entries().items():
        if entry.config is not None and (own := table(entry.config, "method.")):
            parts.append(f"### method={name}\n\n{first_line(entry.factory)}\n\n{own}")
    parts.append(section("model", schema.LoadConfig, "model.teacher."))
    parts.append(section("model.student", schema.StudentConfig, "model.student.", 3))
    parts.append(section("data", schema.DataConfig, "data."))
    parts.append(section("Columns", ColumnsConfig, "data.", 3))
    for name, source in DATA.entries().items():
        if source.config is not None and (own := table(source.config, "data.")):
            parts.append(f"### data={name}\n\n{first_line(source.factory)}\n\n{own}")
    parts += [section(group, config, f"{group}.") for group, config in GROUPS.items()]
    parts.append(f"## peft\n\nOptions: {', '.join(f'`{name}`' for name in ADAPTERS.entries())}.\n")
    parts.append(
        "## trainer\n\nFields of `transformers.TrainingArguments` under their own names; the defaults are in "
        "`conf/trainer/default.yaml`. These belong to the runner:\n"
    )
    parts.append(
        "\n".join(
            ["| key | instead |", "|---|---|", *(f"| `{key}` | {way} |" for key, way in OURS.items()), ""]
        )
    )
    return "\n".join(parts)


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    if "--check" in sys.argv[1:]:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print("up to date" if current else f"{PAGE.name} is out of date: make docs")
        return 0 if current else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
