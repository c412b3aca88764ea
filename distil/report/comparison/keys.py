"""Which config keys the runs differ in, and what each difference is: swept, a choice's own, or a confound.

A key is swept if it varies while the other swept keys stand still. A key that only follows them says nothing
of its own: it is part of the choice (GKD's own temperature, a group of keys that only GKD uses), or declared
(a learning rate tuned for each method or adapter), or it confounds the comparison.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distil.effect import plain, with_effect
from distil.report.run_directory import RunRecord, mapping

SEED = "seed"
UNSCORED = ("eval.metrics",)
"""Further keys that change no score: which of them are taken."""

TUNED = (
    "trainer.learning_rate", "trainer.weight_decay",
    "trainer.warmup_steps", "trainer.warmup_ratio",
    "trainer.lr_scheduler_type", "trainer.lr_scheduler_kwargs",
    "trainer.optim", "trainer.optim_args", "trainer.adam_beta1", "trainer.adam_beta2", "trainer.adam_epsilon",
    "trainer.max_grad_norm",
)  # fmt: skip
"""What a pair's ``tuned`` file may set for each method, its ``tuned_adapter`` file for each adapter: how
steps are taken. How many, and of how many rows, is budget: a file that sets those confounds."""
RECIPE = "recipe"
"""Group of the files that say how a pair of models is trained."""
ABSENT = "no such key"
"""Stands for the value of a key that a run's config does not have."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Keys:
    """The differing keys, each under what it is. ``swept`` holds group names (``method.name``) first."""

    swept: tuple[str, ...]
    with_seed: tuple[str, ...]
    """Other seeds, that move with the run's seed."""
    own: tuple[str, ...]
    """What belongs to a swept choice: the defaults of a method, the keys of an adapter."""
    declared: tuple[str, ...]
    confounds: tuple[str, ...]


def config_of(run: RunRecord) -> Config:
    """The config of ``run`` by dotted key, without the keys that change no score or that it does not use."""
    unused = run.environment.get("ignored")
    return with_effect(run.config, (*UNSCORED, *(map(str, unused) if isinstance(unused, list) else ())))


def configs_of(runs: Sequence[RunRecord]) -> list[Config]:
    """``config_of`` each, with one path for all files and folders of one content that a key names: where they
    lie, and how that is written, changes no score."""
    named: dict[tuple[str, str], Any] = {}
    configs: list[Config] = []
    for run in runs:
        config = config_of(run)
        prints = mapping(run.environment.get("fingerprints"))
        paths = {
            key: named.setdefault((key, str(content)), config[key])
            for key, content in prints.items()
            if key in config
        }
        configs.append({**config, **paths})
    return configs


def given(command: str) -> dict[str, str]:
    """The overrides of a command line, by key; none where it cannot be taken apart."""
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    pairs = (re.fullmatch(r"\+{0,2}([\w./@-]+)=(.*)", word, re.DOTALL) for word in words)
    return {pair[1]: pair[2] for pair in pairs if pair and not pair[1].startswith("-")}


def same(value: Any) -> str:
    """A text that is equal where values are; one of a key that is not there."""
    return value if value is ABSENT else json.dumps(value, sort_keys=True, default=str)


def sort_keys(runs: Sequence[RunRecord], configs: Sequence[Config], declared: Collection[str] = ()) -> Keys:
    """Say of each differing key what it is.

    Args:
        runs: the runs; their command lines tell what was set by hand.
        configs: of each run, by dotted key.
        declared: further keys that were tuned for each group on purpose.
    """
    commands = [given(run.command) for run in runs]
    names = list(dict.fromkeys(key for config in configs for key in config))
    columns = {key: [same(config.get(key, ABSENT)) for config in configs] for key in names}
    differing = [key for key in names if len(set(columns[key])) > 1 and key != SEED]
    partial = _partial_groups(differing, columns)
    swept = [key for key in differing if key.endswith(".name") and key not in partial]
    asked = [key for key in differing if any(key in command for command in commands)]
    rest = [key for key in dict.fromkeys((*asked, *differing)) if key not in swept]
    kinds: dict[str, str] = {}
    one_preset = len({command.get("experiment", "") for command in commands}) == 1
    seeds = [same(config.get(SEED)) for config in configs]
    for key in rest:
        if not _follows(columns[key], [columns[each] for each in swept]):
            if key.endswith(SEED) and _follows(columns[key], [*(columns[each] for each in swept), seeds]):
                kinds[key] = "with_seed"
            else:
                swept.append(key)
        elif _is_own(key, (*swept, *partial), columns, by_hand=key in asked or not one_preset):
            kinds[key] = "own"
        elif key in declared or (key in TUNED and key not in asked and _by_file(key, columns, runs)):
            kinds[key] = "declared"
        else:
            kinds[key] = "confounds"
    of = {kind: tuple(key for key in differing if kinds.get(key) == kind) for kind in set(kinds.values())}
    return Keys(
        tuple(swept),
        of.get("with_seed", ()),
        of.get("own", ()),
        of.get("declared", ()),
        of.get("confounds", ()),
    )


def _follows(column: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether runs that are equal in ``others`` are equal in ``column``."""
    seen: dict[tuple[str, ...], str] = {}
    keys: Iterable[tuple[str, ...]] = zip(*others, strict=True) if others else [()] * len(column)
    return all(seen.setdefault(where, value) == value for where, value in zip(keys, column, strict=True))


def _by_file(key: str, columns: Mapping[str, Sequence[str]], runs: Sequence[RunRecord]) -> bool:
    """Whether each run has for ``key`` what a file of tuned keys set, the last that it recorded of those.

    Where adapters are compared, what was tuned for a method or a pair is of training without one. The recipe
    of a pair says nothing of a method beside another that has a file of its own.
    """
    found: dict[str, set[str]] = {}
    without = same("none")
    names = columns.get("peft.name", [without] * len(runs))
    adapters = len(set(names)) > 1
    for run, value, peft in zip(runs, columns[key], names, strict=True):
        group, written = _last_file(key, run)
        if value != written or (adapters and peft != without and group != "tuned_adapter"):
            return False
        found.setdefault(group, set()).add(value)
    return RECIPE not in found or ("tuned" not in found and len(found[RECIPE]) == 1)


def _last_file(key: str, run: RunRecord) -> tuple[str, str | None]:
    """The group of the last file of tuned keys that set ``key`` for a run, and to what; None: none did."""
    files = run.environment.get("tuned")
    for file in map(mapping, reversed(files) if isinstance(files, list) else ()):
        sets = mapping(file.get("sets"))
        if key in sets:
            return str(file.get("file")).partition("/")[0], same(plain(sets[key]))
    return "", None


def _partial_groups(differing: Sequence[str], columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names of config groups that only some runs use, all of them with one option: nobody chose among two.

    Sampling (``rollouts.name``) is there where the method samples, and absent elsewhere.
    """
    return tuple(
        key
        for key in differing
        if key.endswith(".name") and ABSENT in columns[key] and len(set(columns[key])) == 2
    )


def _is_own(key: str, swept: Sequence[str], columns: Mapping[str, Sequence[str]], by_hand: bool) -> bool:
    """Whether ``key`` belongs to a swept choice and was left to it, or is one that no other choice has."""
    names = [name for name in swept if name.endswith(".name") and key.startswith(name.removesuffix("name"))]
    if not names or not _follows(columns[key], [columns[name] for name in names]):
        return False
    present = {value for value in columns[key] if value != ABSENT}
    return not by_hand or len(present) == 1


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest name of each key that no other of them has: ``temperature``, ``student.path``."""

    def short(key: str) -> str:
        parts = key.removesuffix(".name").split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [other for other in keys if other != key]
        return next((tail for tail in tails if not any(_ends(other, tail) for other in others)), key)

    return {key: short(key) for key in keys}


def _ends(key: str, tail: str) -> bool:
    key = key.removesuffix(".name")
    return key == tail or key.endswith(f".{tail}")


def shown(value: Any, whole: bool = True) -> str:
    """A config value as a person writes it; unless ``whole``, a path by its end, a number by six digits."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}" if whole else f"{value:.6g}"
    if isinstance(value, str):
        return value if whole else value.rstrip("/").rpartition("/")[2] or value
    return json.dumps(value, ensure_ascii=False, default=str)


def group_names(configs: Sequence[Config], swept: Sequence[str]) -> list[str]:
    """The name of each config's group: ``kd``, ``kd temperature=2``; paths whole where they must be."""
    names = short_names(swept)
    choices = {tuple(same(config.get(key, ABSENT)) for key in swept) for config in configs}
    found = [_name(config, swept, names, whole=False) for config in configs]
    if len(set(found)) == len(choices):
        return found
    return [_name(config, swept, names, whole=True) for config in configs]


def _name(config: Config, swept: Sequence[str], names: Mapping[str, str], whole: bool) -> str:
    parts = []
    for key in swept:
        if key in config:
            value = shown(config[key], whole)
            bare = key in ("method.name", "peft.name") and value != "none"  # "best: none" would mislead
            parts.append(value if bare else f"{names[key]}={value}")
    return " ".join(parts) or str(config.get("method.name", "all runs"))


def by_group(
    runs: Sequence[RunRecord], groups: Sequence[str], read: Callable[[RunRecord], Any]
) -> dict[str, list[str]]:
    """What ``read`` finds in the runs of each group, each value once, as text."""
    found: dict[str, list[str]] = {}
    for run, group in zip(runs, groups, strict=True):
        values = found.setdefault(group, [])
        if (value := shown(read(run))) not in values:
            values.append(value)
    return {group: sorted(values) for group, values in found.items()}


def versions_of(run: RunRecord) -> dict[str, str]:
    """The packages of a run that can move a result."""
    packages = mapping(run.environment.get("versions"))
    without = ("wandb", "tensorboard", *(("distil-runner",) if run.environment.get("code") else ()))
    return {name: str(version) for name, version in packages.items() if name not in without}
