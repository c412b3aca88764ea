"""Turns what Hydra and OmegaConf say about a bad config into one sentence: key, value, way out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import fields

from distil.config.command_line import APPENDED_GROUPS, split_override, value_of
from distil.config.suggestions import NO_KEY, Schemas, is_group, keys_of, root_keys, suggestions
from distil.config.trainer import OURS
from distil.registry import did_you_mean, unknown_entry, unknown_name

HYDRA_PLUGINS = {
    "hydra/launcher/joblib": "hydra-joblib-launcher",
    "hydra/launcher/ray": "hydra-ray-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper/optuna": "hydra-optuna-sweeper",
}
"""Launchers and sweepers of others, and the packages that bring them."""

KINDS_OF_FILES = {
    "csv": "csv",
    "json": "json",
    "jsonlines": "jsonl",
    "json_lines": "jsonl",
    "ndjson": "ndjson",
    "parquet": "parquet",
}
"""What is given as an option of ``data`` and is the kind of a file, and how such a file's name ends."""

_EXPECTED = {
    "Float": "a number",
    "Integer": "a whole number",
    "Boolean": "true or false",
    "String": "a text",
}
_MANY = 16
"""Longer lists of keys are not printed: the command that shows them is."""


def explain(text: str, arguments: Sequence[str], schemas: Schemas) -> str:
    """The message for a config that does not compose. ``text`` is Hydra's message and that of its cause."""
    where = re.search(r"^In '([^']+)':", text)
    prefix = f"conf file {where[1]}.yaml: " if where and where[1] != "config" else ""
    if key := re.search(r"full_key: (\S+)", text):
        value = None if prefix else value_of(key[1], arguments)
        if re.search(r"Key '.*' not in '\w+'|is not in struct", text):
            owner = re.search(r"not in '(\w+)'", text)
            name = owner[1] if owner else ""
            if not prefix and value is None and (pair := _typed_below(key[1], arguments)):
                return _unknown_below(key[1], pair, name, schemas)
            return prefix + unknown_key(key[1], value, name, schemas)
        return prefix + wrong_type(key[1], value, text)
    if several := re.search(r"Ambiguous value for argument '(.*)'", text):
        return (
            f"{several[1]} holds several values: add -m to run one after the other, or write key=[a,b] for a "
            "list and key='\"a,b\"' for a text."
        )
    if twice := re.search(r"Multiple values for (\S+?)\. To override", text):
        given = [
            f"{twice[1]}={value}"
            for key, value in filter(None, map(split_override, arguments))
            if key == twice[1]
        ]
        told = " ".join(given) or twice[1]
        return f"{told}: a group has one option. Give one of them, and the keys of the others beside it."
    if "does not support sweep type" in text:
        word = next((word for word in arguments if "interval(" in word), "An interval")
        return (
            f"{word}: a grid takes values, as in {word.partition('=')[0]}=a,b. An interval is searched: add "
            "hydra/sweeper=search_rates."
        )
    if "Error resolving interpolation" in text:
        odd = next((word for word in arguments if re.match(r"~|[\w/]+=\[", word)), "")
        return f"{odd} takes a group away: every run has one option of each, as in method=kd.".lstrip()
    return prefix + " ".join(_useful_lines(text))


def _typed_below(path: str, arguments: Sequence[str]) -> tuple[str, str] | None:
    """``modle.teacher.path``, ``x``, where ``path`` is ``modle``; None where it was typed whole."""
    pairs = filter(None, map(split_override, arguments))
    return next((pair for pair in pairs if pair[0].startswith(f"{path}.")), None)


def _unknown_below(path: str, typed: tuple[str, str], owner: str, schemas: Schemas) -> str:
    """The message for ``modle.teacher.path=x``, where ``path`` is ``modle``."""
    key, value = typed
    if key in NO_KEY:
        return unknown_key(key, value, owner, schemas)
    if path in APPENDED_GROUPS:
        return f"{key}={value}: {path} has no keys. {path}=NAME chooses one; --help lists them."
    return f"{key}={value}: {unknown_key(path, None, owner, schemas)}"


def _useful_lines(text: str) -> list[str]:
    text = text.split("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("See https://")]


def unknown_option(missing: str, options: Sequence[str], text: str, schemas: Schemas) -> str:
    """The message for ``method=kdd``, where ``missing`` is ``method/kdd``."""
    inside = re.fullmatch(r"(hydra/\w+|\w+)/(.*)", missing, re.DOTALL)
    group, name = (inside[1], inside[2]) if inside else ("", missing)
    if "schema/" in text and (schema := re.search(r"schema/(\w+)/(\w+)", text)):
        return _unregistered(schema[1], schema[2], schemas)
    if missing in schemas:
        return (
            f"{missing.replace('/', '=')} is registered, but {missing}.yaml is in no config folder. "
            f"--config-dir FOLDER names yours, with FOLDER/{missing}.yaml in it."
        )
    if package := HYDRA_PLUGINS.get(f"{group}/{name}"):
        return f"{group}={name} needs the package {package}, which is not installed: pip install {package}"
    if not group:
        return f"--config-name={missing}: there is no such file. The config of a run is called config."
    if key := _key_of_ones_own(group, name, options):
        return f"{group}={name} is unknown. {key} Known: {', '.join(sorted(options))}."
    registered = any(path.startswith(f"{group}/") for path in schemas)
    return (unknown_entry if registered else unknown_name)(group, name, options)


def no_option(arguments: Sequence[str], schemas: Schemas) -> str:
    """The message where a group is given something for an option that is no name: ``null``, a number."""
    values = {each.name for each in fields(schemas["experiment"]) if not is_group(each)}
    for group, value in filter(None, map(split_override, arguments)):
        if "." in group or group in values or all(_is_text(word) for word in value.split(",")):
            continue
        none = f" For none of them: {group}=none." if f"{group}/none" in schemas or group == "tracker" else ""
        return f"{group}={value} names no option of the group; --help lists them.{none}"
    return "An option of a group must be a name; --help lists them."


def _is_text(word: str) -> bool:
    """Whether Hydra reads a text where ``word`` stands, and neither null, a boolean nor a number."""
    return re.fullmatch(r"null|true|false|[+-]?(nan|inf|[\d._]+(e[+-]?\d+)?)", word, re.IGNORECASE) is None


def _key_of_ones_own(group: str, name: str, options: Sequence[str]) -> str:
    """What to write for a model or rows of one's own that were given to their group as an option."""
    if group == "model" and "/" in name:
        return f"For a model of your own: model.teacher.path={name} or model.student.path={name}."
    if group == "data" and re.search(r"[/.]", name):
        return f"For rows of your own: data.train_file={name}, or of a hub: data=hf data.path={name}."
    if group == "data" and (kind := KINDS_OF_FILES.get(name.casefold())):
        return f"A file of rows is given by its path, whatever its kind: data.train_file=FILE.{kind}."
    if did_you_mean(name, options):
        return ""
    if group == "model":
        return "For your own, folders or hub names: model.teacher.path=PATH model.student.path=PATH."
    if group == "data":
        return (
            f"For a data set of a hub: data=hf data.path={name}. For rows of your own: data.train_file=FILE. "
            "For a source of your own: run.plugins=[FILE.py]."
        )
    return ""


def _unregistered(group: str, name: str, schemas: Schemas) -> str:
    """The message for an option whose YAML is there and whose dataclass is not."""
    known = sorted(path.removeprefix(f"{group}/") for path in schemas if path.startswith(f"{group}/"))
    return (
        f"{group}={name} has a config file, but no code that registers a dataclass of its keys. Name its "
        "file: run.plugins=[FILE.py] or the environment variable DISTIL_PLUGINS. Registered: "
        f"{', '.join(known)}."
    )


def unparsable(override: str, message: str) -> str:
    """The message for an argument that is no ``key=value``."""
    if "=" not in override:
        return f"{override} is no option: write key=value without blanks, as in method=gkd. See --help."
    key, _, value = override.partition("=")
    if re.fullmatch(r"[^\[{'\"=]*[^,\s\[{'\"=],\s*", value):
        return (
            f"{override} ends in a comma: the values of a list stand without blanks, as in {key}=a,b with -m."
        )
    quoted = value.replace('"', '\\"')
    written = shlex.quote(f'{key}="{quoted}"')
    return (
        f"{override} cannot be read ({_at_fault(message)}). Lists are '{key}=[a,b]'; a text with one of "
        f", = [ ] {{ }} ( ) : ~ & # or a letter beyond a to z needs quotes inside quotes: {written}."
    )


def _at_fault(message: str) -> str:
    """What Hydra's parser stumbled over: it points to a letter by a caret in a line below."""
    lines = message.splitlines()
    caret = next((line.index("^") for line in lines[1:] if line.strip() == "^"), None)
    if caret is not None and caret < len(lines[0]):
        return f"the {lines[0][caret]} in it"
    return _useful_lines(message)[-1]


def unknown_flag(flag: str, value: str, schemas: Schemas) -> str:
    """The message for ``--max_steps 10``, as other programs have it: how that is written here."""
    name = flag.lstrip("-").replace("-", "_")
    root = root_keys(schemas)
    if name in OURS and name not in root:
        return f"{flag} is no flag, and trainer.{name} is set by the runner: {OURS[name]}."
    if name in NO_KEY:
        return f"{flag} is no flag, and there is no such key. {NO_KEY[name]}."
    keys = [name] if "." in name or name in root else suggestions(name, "", root, schemas)
    if not keys:
        return f"{flag} is no flag: keys are written key=value, as in method=gkd or seed=1. See --help."
    parts = [key.partition(" (") for key in keys]  # a key, and with which option of its group it goes
    written = " or ".join(
        (shlex.quote(f"{key}={value}") if value else f"{key}=VALUE") + sign + options
        for key, sign, options in parts
    )
    return f"{flag} is no flag: keys have no dashes. Write {written}."


def unknown_key(path: str, value: str | None, owner: str, schemas: Schemas) -> str:
    """The message for a key that ``owner`` (name of a dataclass) does not have."""
    group, _, name = path.rpartition(".")
    shown = path if value is None else f"{path}={value}"
    if group in ("", "trainer") and name in OURS:
        return f"{shown} is set by the runner: {OURS[name]}."
    if path in NO_KEY:
        return f"{shown}: there is no such key. {NO_KEY[path]}."
    if value is not None and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", path):
        return f"{path} is no key. An environment variable stands before the command: {shown} python run.py …"
    siblings = keys_of(owner, schemas) if group else root_keys(schemas)
    found = suggestions(name, group, siblings, schemas)
    hint = f" Did you mean {' or '.join(found)}?" if found else ""
    if found and (only := found[0].removeprefix(f"{path} (with ")) != found[0]:
        hint = f" It is a key of {only.rstrip(')')}."
    place = next(
        (f"{p.replace('/', '=')}" for p, c in schemas.items() if c.__name__ == owner and "/" in p), group
    )
    if not group:
        return f"{shown} is unknown.{hint} Groups and keys: {', '.join(siblings)}."
    if not siblings and place != group:
        return f"{shown} is unknown: {place} has no keys.{hint}"
    if not siblings or len(siblings) > _MANY:
        part = "hydra" if group.startswith("hydra.") else "job"
        whole = group if part == "hydra" else group.split(".")[0]
        return f"{shown} is unknown.{hint} All keys: --cfg {part} --package {whole}."
    return f"{shown} is unknown: {place} has no such key.{hint} It has: {', '.join(siblings)}."


def wrong_type(path: str, value: str | None, text: str) -> str:
    """The message for a value that its key cannot hold."""
    if value is None and (quoted := re.search(r"Value '(.*?)' of type", text)):
        value = quoted[1]
    shown = path if value is None else f"{path}={value}"
    if kind := re.search(r"could not be converted to (\w+)", text):
        several = _several(value or "") if kind[1] == "Integer" else ""
        way_out = f" Several runs: -m {path}={several}." if several else ""
        return f"{shown} has the wrong type: it takes {_EXPECTED.get(kind[1], kind[1])}.{way_out}"
    if "is not a valid bool" in text:
        return f"{shown} has the wrong type: it takes {_EXPECTED['Boolean']}."
    if "is not Optional" in text:
        return f"{shown} has the wrong type: it cannot be null."
    if "is not a ListConfig" in text:
        return f"{shown} has the wrong type: it takes a list, as in '{path}=[{value or 'a,b'}]'."
    if plural := re.search(r"Cannot convert '(list|dict)\w*' to string", text):
        which = "list" if plural[1] == "list" else "mapping"
        return f"{shown} has the wrong type: it takes one text, and no {which}."
    if "is not a subclass of" in text:
        one = f"{path}.path={value}" if path.startswith("model.") and value else f"{path}.KEY=VALUE"
        return f"{shown} has the wrong type: it holds keys of its own, as in {one}. See --cfg job."
    reasons = [line for line in _useful_lines(text) if not line.startswith("Error merging override")]
    return f"{shown} has the wrong type: {reasons[0]}"


def _several(value: str) -> str:
    """``1,2,3`` of ``1..3``, ``1-3``, ``1:3`` or ``[1,2,3]``, which are typed for one value; else nothing."""
    if span := re.fullmatch(r"(\d+)\s*(?:\.\.|-|:)\s*(\d+)", value):
        low, high = int(span[1]), int(span[2])
        return ",".join(map(str, range(low, high + 1))) if low < high < low + _MANY else ""
    several = re.fullmatch(r"\[\s*\d+(\s*,\s*\d+)+\s*\]", value)
    return re.sub(r"[\[\]\s]", "", value) if several else ""
