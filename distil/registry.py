"""Registries that find their own entries: a method, adapter, data source or metric is one file, no other
edit."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import zlib
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from distil.types import InputError

T = TypeVar("T")

ENTRY_POINT_GROUP = "distil.plugins"
"""Installed packages name modules under this entry point group; importing them registers what they hold."""
MODULE_PREFIX = "distil_plugin_"
"""Of the modules that are imported from users' files."""
PREFIX = 3
"""Letters from which on the beginning of a name counts for more than its likeness to another."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing: its name, what builds it, and the dataclass of its config keys (None: no
    keys)."""

    name: str
    factory: T
    config: type[Any] | None


class Registry(Generic[T]):
    """Names to factories, filled by importing every module of ``package`` on first use.

    Modules of the package must import nothing heavy at module level: they are imported to compose a config.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry[T]] = {}
        self._scanned = False

    def register(self, name: str, config: type[Any] | None = None) -> Callable[[T], T]:
        """Decorator that files ``factory`` under ``name``, with the dataclass of its keys.

        Raises InputError if another one already has it, or if the dataclass says another name.
        """

        def decorate(factory: T) -> T:
            own = getattr(config, "name", name)
            if config is not None and own != name:
                kind = config.__name__
                raise InputError(
                    f"{self.kind}={name} is registered with {kind}, whose own name is {own!r}: "
                    f"{kind}.name must be {name!r} too."
                )
            known = self._entries.get(name)
            if known is not None and _origin(known.factory) != _origin(factory):
                raise InputError(f"{self.kind}={name} is registered twice: {known.factory} and {factory}")
            self._entries[name] = Entry(name, factory, config)
            return factory

        return decorate

    def entries(self) -> dict[str, Entry[T]]:
        """All entries by name, sorted, after importing the package's modules once."""
        if not self._scanned:
            self._scanned = True
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        return dict(sorted(self._entries.items()))

    def get(self, name: str) -> Entry[T]:
        """The entry called ``name``. Raises InputError naming the nearest known name."""
        entries = self.entries()
        if name not in entries:
            raise InputError(unknown_entry(self.kind, name, entries))
        return entries[name]


def _origin(factory: object) -> tuple[str | None, str | None]:
    """Module and name: what an import repeated by a test or a launcher's child has in common."""
    return getattr(factory, "__module__", None), getattr(factory, "__qualname__", None)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Which of ``known`` was probably meant by ``name``, letter case aside; None where none is like it.

    ``cutoff``: how like, as ``difflib`` counts it.
    """
    folded = {each.casefold(): each for each in sorted(known)}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question, with a blank before it, that names the nearest of ``known``; empty where none is near.

    Those that begin with ``name``, best as a word, are the nearest; of them, the first of ``known``.
    """
    names = sorted(known) if isinstance(known, Set) else list(known)
    start = name.casefold()
    begun = [each for each in names if name and each.casefold().startswith(f"{start}_")]
    begun = begun or [each for each in names if len(name) >= PREFIX and each.casefold().startswith(start)]
    near = nearest(name, names)
    said = " or ".join(begun[:3] or ([near] if near else []))
    return f" Did you mean {said}?" if said else ""


def unknown_name(key: str, value: str, known: Iterable[str]) -> str:
    """The message for a name nobody knows: key, value, nearest name, all names."""
    names = list(known)
    told = ", ".join(sorted(names)) or "none"
    return f"{key}={value} is unknown.{did_you_mean(value, names)} Known: {told}."


def load_plugins(paths: Iterable[str]) -> None:
    """Import users' files so that what they register is known: each path is a .py file or a folder of them.

    Installed packages that declare the entry point group ``distil.plugins`` are imported too.
    Raises InputError for a path that does not exist or a file that cannot be imported.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:  # whatever somebody else's package raises
            raise InputError(
                f"The plugin {point.name} ({point.value}) of an installed package cannot be loaded: "
                f"{type(error).__name__}: {error}. Repair or uninstall that package."
            ) from error
    for path in map(Path, paths):
        if not path.exists():
            several = f" DISTIL_PLUGINS holds several divided by {os.pathsep!r}." if "," in str(path) else ""
            raise InputError(f"run.plugins={path}: no such file or folder.{several}")
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            _import_file(file.resolve())


def loaded_plugins() -> dict[str, Path]:
    """The plugins that were imported from files: names of their modules, and where they lie."""
    return {
        name: Path(str(module.__file__))
        for name, module in list(sys.modules.items())
        if name.startswith(MODULE_PREFIX)
    }


def _import_file(file: Path) -> None:
    # The path is in the name: two folders may each hold a file of one name.
    name = f"{MODULE_PREFIX}{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"run.plugins={file}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]  # the next attempt must meet the same error
        if isinstance(error, InputError):
            raise
        raise InputError(f"run.plugins={file}: {type(error).__name__}: {error}") from error


def unknown_entry(key: str, value: str, known: Iterable[str]) -> str:
    """``unknown_name`` for what users may register: what nothing known is like may be of theirs."""
    names = list(known)
    own = " One of your own needs its file: run.plugins=[FILE.py] or the environment variable DISTIL_PLUGINS."
    return unknown_name(key, value, names) + ("" if did_you_mean(value, names) else own)
