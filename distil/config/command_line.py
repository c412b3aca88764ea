"""What the command line says, before Hydra sees it: plugins, secrets, unknown flags, friendly short cuts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from distil.system.files import expanded
from distil.system.redact import holds_secret, is_secret
from distil.types import InputError

PLUGINS_VARIABLE = "DISTIL_PLUGINS"
"""Environment variable with the paths of plugins, separated like PATH."""

BARE_FLAGS = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")
VALUED_FLAGS = (
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
)
INFO_FLAGS = ("--info", "-i")
"""Their value may be left out."""
MULTIRUN_FLAGS = ("--multirun", "-m")
OTHER_COMMANDS = (
    "--run",
    "-r",
    "--cfg",
    "-c",
    *INFO_FLAGS,
    "--shell-completion",
    "-sc",
    "--hydra-help",
    "--version",
)
"""Flags that ask for something else than to run; Hydra says which do not go together."""
HYDRA_FLAGS = (*BARE_FLAGS, *VALUED_FLAGS, *INFO_FLAGS, "--shell-completion", "-sc", "--experimental-rerun")
APPENDED_GROUPS = ("experiment", "debug", "sweep")
"""Groups without a default, for which Hydra wants ``+experiment=x``: ``experiment=x`` is understood too."""

FREE_KEYS = ("model.student.overrides.", "model.student.overrides=")
"""Below these any key may be set, one by one or as ``={a:1}``; Hydra wants ``++`` for what no schema has."""

PLACES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir")
"""Where Hydra would put a run, and from where it would run."""

IMPLIED = {
    "model": ("custom", ("model.teacher.path", "model.student.path")),
    "data": ("jsonl", ("data.train_file", "data.validation_file", "data.test_file")),
}
"""Group -> (option, keys): any of the keys chooses the option where the command line names none."""

NO_PATH = ("self", "null")
"""Values of those keys that name no model of one's own."""

_INNER_KEY = re.compile(r"[{,]\s*['\"]?([\w.-]+)['\"]?\s*:")
"""Keys of a mapping in a value: ``{hub_token: x}``."""
_HOME = re.compile(r"""([=,])(~/[^,"'\[\]{}()]*)(?=,|$)""")
"""A path below one's home among the values of a key: Hydra reads no ~ without quotes."""
_OVERRIDE = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)


def split_override(argument: str) -> tuple[str, str] | None:
    """The key and the value of ``key=value`` (signs left out); None where ``argument`` is no override."""
    match = _OVERRIDE.fullmatch(argument)
    return (match["key"], match["value"]) if match else None


def value_of(key: str, arguments: Iterable[str]) -> str | None:
    """The last value that ``arguments`` give ``key``, as it was typed."""
    found = [pair[1] for pair in map(split_override, arguments) if pair and pair[0] == key]
    return found[-1] if found else None


def plugin_paths(arguments: Sequence[str]) -> list[str]:
    """Plugins of the environment variable and of ``run.plugins=[a,b]``: known before anything composes."""
    paths = [path for path in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if path]
    typed = (value_of("run.plugins", arguments) or "").strip().strip("[]")
    paths += [path.strip().strip("'\"") for path in typed.split(",") if path.strip()]
    return list(dict.fromkeys(str(expanded("run.plugins", path)) for path in paths))


def flags_first(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags with their values, and the overrides. Hydra's parser fails where a flag stands between."""
    flags: list[str] = []
    overrides: list[str] = []
    before = ""
    for word in arguments:
        is_value = before in VALUED_FLAGS or (before in INFO_FLAGS and "=" not in word)
        (flags if is_value or word.startswith("-") else overrides).append(word)
        before = word
    return flags, overrides


def flag_value(flags: Sequence[str], *names: str) -> str | None:
    """The value that ``flags`` (as ``flags_first`` gives them) have for any of ``names``."""
    for word, following in zip(flags, [*flags[1:], ""], strict=False):  # of no flags, one is left over
        flag, sign, value = word.partition("=")
        if flag in names:
            return value if sign else following
    return None


def is_sweep(flags: Sequence[str], overrides: Sequence[str]) -> bool:
    """Whether the command asks for a sweep, and for nothing that goes without one."""
    asked = any(flag in MULTIRUN_FLAGS for flag in flags)
    asked = asked or (value_of("hydra.mode", overrides) or "").upper() == "MULTIRUN"
    return asked and not any(flag.split("=")[0] in OTHER_COMMANDS for flag in flags)


def _without_dashes(flag: str, value: str) -> str:
    """What is said of a flag where no keys are known that it may mean."""
    key = flag.lstrip("-").replace("-", "_") or "method"
    return f"{flag} is no flag: keys have no dashes, as in {key}={value or 'VALUE'}. See --help."


def check_arguments(
    arguments: Sequence[str], about_flag: Callable[[str, str], str] = _without_dashes
) -> None:
    """Raise InputError for a flag nobody knows, and for a secret: command lines are logged.

    ``about_flag`` is told such a flag and its value (empty: none was given), and says what is wrong.
    """
    for number, argument in enumerate(arguments, 1):
        flag, _, given = argument.partition("=")
        if argument in VALUED_FLAGS and number == len(arguments):
            raise InputError(f"{flag} wants a value after it. See --help.")
        unknown = flag.startswith("-") and flag not in HYDRA_FLAGS and not re.fullmatch(r"-\d.*", flag)
        alone = (flag.lstrip("-"), given) if unknown else ("", argument)  # a folder's name is no key
        name, value = split_override(argument) or alone
        if holds_secret(argument) or any(map(is_secret, (name, *_INNER_KEY.findall(value)))):
            shown = f"{name}=…" if name and not holds_secret(name) else "…"
            raise InputError(
                f"{shown} is a secret, and command lines are logged. Set it in the environment instead: "
                "HF_TOKEN for the hub, WANDB_API_KEY for Weights & Biases."
            )
        if name in PLACES and value.lower() != "false":
            raise InputError(
                f"{name}={value} changes nothing: runs lie in OUTPUT_DIR/NAME, and paths are read from where "
                "the command is given. Give output_dir= and name=."
            )
        if unknown:
            near = get_close_matches(flag, [f for f in HYDRA_FLAGS if f[:2] == "--"], n=1, cutoff=0.8)
            if near:
                raise InputError(f"{flag} is no flag. Did you mean {near[0]}?")
            raise InputError(about_flag(flag, given or _value_after(arguments[number:])))


def _value_after(words: Sequence[str]) -> str:
    """The value of a flag, as other programs have it, that ``words`` follow; empty where it has none."""
    word = words[0] if words else ""
    return "" if word.startswith("-") or "=" in word or holds_secret(word) else word


def expand(arguments: Sequence[str]) -> list[str]:
    """``arguments`` as Hydra wants them.

    ``experiment=x`` becomes ``+experiment=x``; paths of models of one's own choose ``model=custom``, so that
    the default pair's recipe does not apply to them, and ``data.train_file`` chooses ``data=jsonl``.
    An experiment chooses for itself: with one, nothing is chosen here.
    """
    pairs = [pair for pair in map(split_override, arguments) if pair]
    given = {key for key, value in pairs if value not in NO_PATH}
    chosen: list[str] = []
    if "experiment" not in given:
        for group, (option, keys) in IMPLIED.items():
            if group not in given and given.intersection(keys):
                chosen.append(f"{group}={option}")
    return chosen + [_signed(word) for word in arguments]


def _signed(word: str) -> str:
    word = _HOME.sub(r'\1"\2"', word)
    if word.startswith(tuple(f"{group}=" for group in APPENDED_GROUPS)):
        return f"+{word}"
    return f"++{word}" if word.startswith(FREE_KEYS) else word
