"""Where a model's files are: our own assets, a folder, our mirror of a hub model, or the hub.

Standard library only, except that a hub name asks ``huggingface_hub`` what its cache holds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from distil.config.schema import LoadConfig, ModelConfig
from distil.system.files import expanded
from distil.types import InputError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
"""What ``distil:`` stands for: models that ship with the package."""

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The one hub model that ``scripts/get_smollm2.py`` brings without a hub."""

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """One model as the user named it, and the folder that holds it."""

    key: str
    """Config key of the path, for messages: ``model.teacher.path``."""
    name: str
    """The path as given."""
    folder: Path | None
    """Local folder; None: the hub."""
    revision: str | None = None
    gguf_file: str | None = None
    trust_remote_code: bool = False
    """Whether Python files beside the model may be run."""

    @property
    def location(self) -> str:
        """What ``from_pretrained`` is given."""
        return self.name if self.folder is None else str(self.folder)

    @property
    def label(self) -> str:
        """``key=name``, the opening of every message about this model."""
        return f"{self.key}={self.name}"

    def file(self, name: str) -> Path | None:
        """The local file ``name`` of this model: in its folder or in the hub's cache; None where absent."""
        if self.folder is not None:
            path = self.folder / name
            return path if path.is_file() else None
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, name, revision=self.revision)
        return Path(cached) if isinstance(cached, str) else None


def teacher_source(config: ModelConfig) -> Source | None:
    """Where the teacher is; None where there is none of its own (``null``, ``self``)."""
    return None if config.teacher.is_self else _locate("model.teacher.path", config.teacher)


def student_source(config: ModelConfig) -> Source:
    """Where the student starts from: its own path, or the teacher's where that is null.

    Raises InputError where neither is given.
    """
    source = _locate("model.student.path", config.student) or teacher_source(config)
    if source is None and config.teacher.is_self:
        raise InputError(
            "model.teacher.path=self is the student's own base, so model.student.path must be given."
        )
    if source is None:
        raise InputError(
            "model.student.path=null and model.teacher.path=null: there is no model. "
            "Set at least one to a local folder or a hub name."
        )
    return source


def trusted(config: ModelConfig) -> list[str]:
    """What the results say of models whose own code may run: a line each."""
    sources = dict.fromkeys(filter(None, (teacher_source(config), student_source(config))))
    return [
        f"{source.key.removesuffix('path')}trust_remote_code=true: Python files of {source.name} were run."
        for source in sources
        if source.trust_remote_code
    ]


def cache_folder() -> Path:
    """Our own cache: ``$DISTIL_CACHE``, else ``$XDG_CACHE_HOME/distil``, else ``~/.cache/distil``."""
    own = os.environ.get("DISTIL_CACHE")
    if own:
        return expanded("DISTIL_CACHE", own)
    return expanded("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "distil"


def mirror_folder(name: str) -> Path:
    """Where our scripts put a copy of the hub model ``name`` (``org/model`` becomes ``org--model``)."""
    return cache_folder() / "models" / name.replace("/", "--")


def _locate(key: str, load: LoadConfig) -> Source | None:
    if load.path is None:
        return None
    return Source(key, load.path, _folder(key, load), load.revision, load.gguf_file, load.trust_remote_code)


def _folder(key: str, load: LoadConfig) -> Path | None:
    name = str(load.path)
    if name.startswith("distil:"):
        folder = ASSETS / name.removeprefix("distil:")
        if not folder.is_dir():
            raise InputError(f"{key}={name}: this installation ships no such model. {_neighbours(folder)}")
        return folder
    folder = expanded(key, name)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{key}={name} is a file. {_instead(key, folder)}")
    if not _HUB_NAME.fullmatch(name):
        raise InputError(
            f"{key}={name}: no such folder, and hub names look like org/model. {_neighbours(folder)}"
        )
    # A mirror is one version of the model: asked for another, it has nothing to offer.
    if load.revision is None and (mirror_folder(name) / "config.json").is_file():
        return mirror_folder(name)
    return None


def _instead(key: str, file: Path) -> str:
    """What to give in place of ``file``: its folder, where that is a model's."""
    gguf = f" and {key.removesuffix('path')}gguf_file={file.name}" if file.suffix == ".gguf" else ""
    if gguf or (file.parent / "config.json").is_file():
        return f"Give its folder: {key}={file.parent}{gguf}"
    return f"Give the folder of a model, which holds config.json, or the name of one that a hub has: {key}=…"


def _neighbours(folder: Path) -> str:
    """A hint at what the user may have meant: the nearest names beside ``folder``."""
    parent = folder.parent
    if not parent.is_dir():
        return f"{parent} does not exist either."
    names = sorted(path.name for path in parent.iterdir() if path.is_dir())
    near = get_close_matches(folder.name, names, n=3) or names[:5]
    return f"Folders in {parent}: {', '.join(near)}." if near else f"{parent} holds no folder."
