"""Write docs/configuration.md: every config key with type, default, unit and meaning, from the dataclasses.

python scripts/generate_config_reference.py            # write
python scripts/generate_config_reference.py --check    # exit 1 where the page is out of date
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml

from distil.adapters.base import ADAPTERS
from distil.adapters.lora import LoraConfig
from distil.adapters.prompts import PromptLearningConfig
from distil.config import schema
from distil.config.help import conf_folder
from distil.config.trainer import OURS
from distil.config.training_arguments import CHOICES, TrainingFields
from distil.data.base import DATA, ColumnsConfig
from distil.methods.base import METHODS
from distil.teacher_cache.formats.base import FORMATS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every key, made from the code by `make docs`. Give one as `group.key=value`. `python run.py … --cfg job` shows
the config that a command composes, `python run.py --help` the options of each group. `???` must be given.
A unit of 1 is a plain number.
"""
GROUPS = {
    "rollouts": schema.RolloutConfig,
    "run": schema.RunConfig,
    "eval": schema.EvalConfig,
    "tracker": schema.TrackerConfig,
    "compare": schema.CompareConfig,
}
WRITTEN = {
    "MISSING": "???",
    "list": "[]",
    "dict": "{}",
    # What the option's YAML says of it, and what its class says.
    "MethodConfig.temperature": f"${{method.temperature}}`; in Python `{schema.MethodConfig.temperature}",
}
"""Defaults of dataclasses that YAML writes another way."""
TOP = ("| key | type | default | unit | meaning |", "|---|---|---|---|---|")

UNITS = {
    **dict.fromkeys(("data.max_length", "data.text_prompt_tokens"), "tokens"),
    **dict.fromkeys(("rollouts.max_new_tokens", "eval.max_new_tokens"), "tokens"),
    **dict.fromkeys(("rollouts.top_k", "eval.top_k", "peft.num_virtual_tokens"), "tokens"),
    **dict.fromkeys(("data.max_train_rows", "data.max_eval_rows", "eval.batch_size"), "rows"),
    **dict.fromkeys(("eval.generation_rows", "eval.samples", "eval.during_training_rows"), "rows"),
    **dict.fromkeys(("trainer.per_device_train_batch_size", "trainer.per_device_eval_batch_size"), "rows"),
    "trainer.gradient_accumulation_steps": "micro-batches",
    **dict.fromkeys(("trainer.max_steps", "trainer.torch_empty_cache_steps", "trainer.eval_delay"), "steps"),
    **dict.fromkeys(
        ("trainer.warmup_steps", "trainer.logging_steps", "trainer.eval_steps", "trainer.save_steps"),
        "steps; below 1: share of all",
    ),
    "trainer.num_train_epochs": "epochs",
    "trainer.max_grad_norm": "norm",
    "trainer.save_total_limit": "checkpoints",
    "trainer.dataloader_num_workers": "processes",
    "trainer.dataloader_prefetch_factor": "batches",
    "trainer.ddp_bucket_cap_mb": "MB",
    "trainer.ddp_timeout": "seconds",
    "run.threads": "threads",
    **dict.fromkeys(("peft.layers_to_transform", "model.student.keep_layers"), "blocks"),
    **dict.fromkeys(("peft.encoder_hidden_size", "peft.r"), "dimensions"),
    "peft.encoder_num_layers": "layers",
    "teacher_cache.k": "tokens",
    "teacher_cache.samples": "draws",
    "peft.bits": "bits",
    **dict.fromkeys(("method.kd_loss_weight", "method.lambda_gkd", "method.mixture_weight"), "share"),
    **dict.fromkeys(("data.validation_fraction", "rollouts.top_p", "eval.top_p"), "share"),
    **dict.fromkeys(("peft.lora_dropout", "peft.encoder_dropout"), "share"),
}
"""What a number counts. Numbers that are not here count nothing: their unit is 1."""


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
        default = WRITTEN.get(default, default)
        for python, yaml_word in (("None", "null"), ("True", "true"), ("False", "false"), ("'", "")):
            default = default.replace(python, yaml_word)
        yield ast.unparse(node.target), ast.unparse(node.annotation), default, doc


def row(key: str, kind: str, default: str, doc: str) -> str:
    """One line of a table."""
    unit = UNITS.get(key, "1" if {"int", "float"} & set(kind.split(" | ")) else "")
    kind = kind.replace("|", "or").replace("None", "null")
    cells = (f"`{key}`", kind, f"`{default}`", unit, doc.replace("``", "`"))
    escaped = (cell.replace("|", r"\|") for cell in cells)  # GitHub cuts at any other, in code too
    return f"| {' | '.join(escaped)} |"


def table(config: type[Any], prefix: str, skip: tuple[str, ...] = ("name",)) -> str:
    """A Markdown table of a dataclass's own keys; empty where it defines none."""
    rows = [
        row(prefix + name, kind, default, doc or inherited(config, name))
        for name, kind, default, doc in keys(config)
        if name not in skip and not default.startswith(config.__module__)
    ]
    return "\n".join([*TOP, *rows, ""]) if rows else ""


def inherited(config: type[Any], name: str) -> str:
    """What a base class says of a key whose default ``config`` changes."""
    said = (doc for base in config.__mro__[1:-1] for own, _, _, doc in keys(base) if own == name and doc)
    return next(said, "")


def adapters() -> Iterator[str]:
    """The keys of each adapter; those that adapters of a family share stand once."""
    families = {"lora, dora, qlora": LoraConfig, "prefix, prompt, ptuning": PromptLearningConfig}
    for names, shared in families.items():
        yield f"### peft={names}\n\n{table(shared, 'peft.')}"
    for name, entry in ADAPTERS.entries().items():
        assert entry.config is not None
        own = "" if entry.config is LoraConfig else table(entry.config, "peft.")
        if own:
            yield f"### peft={name}\n\n{first_line(entry.factory)}\n\n{own}"


def trainer() -> str:
    """Every field of TrainingArguments that a run takes; the default where the runner has one of its own."""
    defaults = yaml.safe_load((conf_folder() / "trainer" / "default.yaml").read_text(encoding="utf-8"))
    rows = []
    for name, kind, _, _ in keys(TrainingFields):
        choices = ", ".join(f"`{choice}`" for choice in CHOICES.get(name, ()))
        default = str(defaults[name]) if name in defaults else "null"
        rows.append(row(f"trainer.{name}", kind.removesuffix(" | None"), default, choices))
    return "\n".join([*TOP, *rows, ""])


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
    parts = [HEAD, "## The root\n", "\n".join([*TOP, *(row(*key) for key in root), ""])]
    parts.append(section("method", schema.MethodConfig, "method."))
    for name, entry in METHODS.entries().items():
        if entry.config is not None and (own := table(entry.config, "method.")):
            parts.append(f"### method={name}\n\n{first_line(entry.factory)}\n\n{own}")
    parts.append(f"## model\n\n{first_line(schema.LoadConfig)}\n")
    for role, config in (("teacher", schema.TeacherConfig), ("student", schema.StudentConfig)):
        shared = table(schema.LoadConfig, f"model.{role}.").rstrip("\n")
        own = table(config, f"model.{role}.").removeprefix("\n".join(TOP))
        parts.append(f"### model.{role}\n\n{first_line(config)}\n\n{shared}{own}")
    parts.append(section("data", schema.DataConfig, "data."))
    parts.append(section("Columns", ColumnsConfig, "data.", 3))
    for name, source in DATA.entries().items():
        if source.config is not None and (own := table(source.config, "data.")):
            parts.append(f"### data={name}\n\n{first_line(source.factory)}\n\n{own}")
    parts.append(section("peft", schema.PeftConfig, "peft."))
    parts += adapters()
    parts.append(section("teacher_cache", schema.TeacherCacheConfig, "teacher_cache."))
    for name, kept in FORMATS.entries().items():
        if kept.config not in (None, schema.TeacherCacheConfig) and (
            own := table(kept.config, "teacher_cache.")
        ):
            parts.append(f"### teacher_cache={name}\n\n{first_line(kept.factory)}\n\n{own}")
    parts += [section(group, config, f"{group}.") for group, config in GROUPS.items()]
    parts.append(
        "## trainer\n\nFields of "
        "[`transformers.TrainingArguments`](https://huggingface.co/docs/transformers/main_classes/trainer) "
        "under their own names; what each does is said there. Where the default is `null`, "
        "it is transformers' own.\n"
    )
    parts.append(trainer())
    parts.append("### Set by the runner\n")
    parts.append(
        "\n".join(
            ["| key | instead |", "|---|---|", *(f"| `{key}` | {way} |" for key, way in OURS.items()), ""]
        )
    )
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


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
