"""Which files of tuned keys a config was composed with: the evidence on which a comparison declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from distil.effect import leaves, plain
from distil.identity import fingerprint_path

GROUPS = ("recipe", "tuned", "tuned_adapter")
"""``<model>.yaml``, ``<model>_<method>.yaml`` and ``<model>_<peft>.yaml``, read where they are there, in this
order: the last counts."""

Tuned = Mapping[str, Any]
"""One file as ``environment.json`` holds it: ``file`` (its path below the config folder), ``digest`` of its
contents, ``sets`` (its value by dotted key)."""


def tuned_files(hydra: Any) -> list[Tuned]:
    """The files of tuned keys that Hydra read. ``hydra`` is its own part of the composed config."""
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    found: list[Tuned] = []
    for group in GROUPS:
        name = Path(group, f"{hydra.runtime.choices.get(group)}.yaml")
        file = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if file is not None:
            found.append({"file": name.as_posix(), "digest": fingerprint_path(file), "sets": _keys(file)})
    return found


def _keys(file: Path) -> dict[str, Any]:
    package = re.search(r"^# *@package +(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    inside = "" if package is None or package[1] == "_global_" else package[1]
    tree = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(tree, dict)
    tree.pop("defaults", None)
    return leaves(plain(tree), inside)
