"""Where a student comes from: its start, its teacher and its data, as readers elsewhere know them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distil.cards.text import plain
from distil.config.schema import DataConfig, ExperimentConfig
from distil.methods.base import method_of
from distil.models.sources import Source, student_source, teacher_source
from distil.system.files import read_json
from distil.system.hub import in_cache
from distil.types import InputError

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Origin:
    """A model or a data set that the student comes from, as its readers know it."""

    name: str
    """In a few characters: ``gpt2``, ``the embedded teacher of distil-runner``."""
    hub: str | None = None
    """Its name on the hub; None where it is not known to have one."""
    license: str | None = None
    """As its own card or config says."""

    @property
    def link(self) -> str:
        """The name in Markdown."""
        return plain(self.name) if self.hub is None else f"[{self.hub}]({HUB}/{self.hub})"


def start_of(config: ExperimentConfig) -> Origin:
    """What the student was before."""
    return _origin(lambda: student_source(config.model), config.model.student.path)


def teacher_of(config: ExperimentConfig) -> Origin | None:
    """Whom it learnt from; None where the method asks no teacher."""
    teacher = config.model.teacher
    method = method_of(config.method)
    if not method.needs_teacher or teacher.path is None:
        return None
    if teacher.is_self:
        return Origin("the student itself, as it was before")
    return _origin(lambda: teacher_source(config.model), teacher.path)


def _origin(locate: Callable[[], Source | None], path: str | None) -> Origin:
    try:
        source: Source | None = locate()
    except InputError:  # its folder is gone: the name is left
        source = None
    name = path if source is None else source.name
    if name is None:
        return Origin("a model without a name")
    if name.startswith("distil:"):
        kind = name.removeprefix("distil:").replace("/", " ")
        return Origin(f"the {kind} of distil-runner", None, _license(source))
    if source is not None and _of_hub(source):
        return Origin(name.rpartition("/")[2], name, _license(source))
    return Origin(Path(name).name, None, _license(source))


def _of_hub(source: Source) -> bool:
    """Whether the name is one of the hub: it is no folder here, and what the hub has under it was fetched.

    A relative path, read from another folder than the run's, looks like one too.
    """
    if Path(source.name).expanduser().is_dir():
        return False
    return source.folder is not None or in_cache("models", source.name)


def _license(source: Source | None) -> str | None:
    """What the model's own card says, or its config; None where neither is here or neither says it."""
    if source is None:
        return None
    from huggingface_hub import metadata_load

    card, config = source.file("README.md"), source.file("config.json")
    return _license_in(card, metadata_load) or _license_in(config, read_json)


def _license_in(file: Path | None, read: Callable[[Path], Any]) -> str | None:
    try:
        said = None if file is None else read(file)["license"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None
    return said if isinstance(said, str) else None


def data_of(data: DataConfig) -> Origin:
    """The data set: by its hub name, or by the name of its file."""
    usual, given = getattr(type(data), "path", None), getattr(data, "path", None)
    fetched = given is not None and not Path(given).expanduser().exists() and in_cache("datasets", given)
    if hub := given if fetched else usual if given in (None, usual) else None:
        return Origin(hub.rpartition("/")[2], hub)
    file = given or getattr(data, "train_file", None)
    return Origin(Path(str(file)).name if file else f"the {data.name} data of distil-runner")
