"""Keys that not all of the swept options have: ``-m method=kd,gkd method.lambda_gkd=0.3``.

Each job takes those of its own option. What none of the options has is left for composition to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from distil.config.command_line import split_override
from distil.config.saved import REGISTRIES
from distil.config.store import schemas


def keys_below(groups: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides of keys of ``groups``, such as ``method.temperature=2``."""
    pairs = [(word, split_override(word)) for word in overrides]
    return [word for word, pair in pairs if pair and "." in pair[0] and pair[0].partition(".")[0] in groups]


def fitted(jobs: Sequence[list[str]]) -> tuple[list[list[str]], list[str]]:
    """``jobs`` without the overrides that are of another job's option, and a line on each key that was left
    out. Jobs that differed in nothing else are one.

    Args:
        jobs: overrides of each, one value each.
    """
    chosen = [dict(filter(None, map(split_override, job))) for job in jobs]
    swept = {group: {job[group] for job in chosen if group in job} for group in REGISTRIES}
    fit: list[list[str]] = []
    left_out: dict[str, tuple[str, set[str], set[str]]] = {}  # by key: its group, who has it, who has not
    for job, choice in zip(jobs, chosen, strict=True):
        kept = []
        for word in job:
            key = (split_override(word) or ("",))[0]
            group, _, name = key.partition(".")
            own = choice.get(group, "")
            having = {each for each in swept.get(group, ()) if _may_have(group, each, name)}
            if name and having and own and own not in having:
                left_out.setdefault(key, (group, having, set()))[2].add(own)
            else:
                kept.append(word)
        if kept == job or kept not in fit:
            fit.append(kept)
    return fit, [
        f"{key} is a key of {group}={','.join(sorted(having))}: {group}={','.join(sorted(others))} goes "
        "without it."
        for key, (group, having, others) in left_out.items()
    ]


def lacking(overrides: Sequence[str], choices: Mapping[str, str]) -> list[str]:
    """Those of ``overrides`` whose key the chosen option of its group does not have.

    Args:
        overrides: of keys of groups, as ``keys_below`` gives them.
        choices: the option of each group.
    """
    keys = {word: (split_override(word) or ("",))[0].partition(".") for word in overrides}
    return [word for word, (group, _, name) in keys.items() if not _may_have(group, choices[group], name)]


def _may_have(group: str, option: str, name: str) -> bool:
    """Whether an option has the key ``name``: what has no dataclass of its name is not known, and may."""
    config = schemas().get(f"{group}/{option}")
    return config is None or name.partition(".")[0] in {field.name for field in fields(config)}
