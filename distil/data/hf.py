"""Any data set of the Hugging Face hub, or one on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distil.data.base import ColumnsConfig, DataSource, RawSplits, register_data
from distil.data.columns import detect
from distil.data.local import FORMATS, SPLIT_STEMS, check_file, load_file, split_files
from distil.registry import did_you_mean
from distil.system.files import expanded
from distil.system.hub import ask, in_cache, offline_asked
from distil.system.quiet import quiet_datasets
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset

C = TypeVar("C", bound="HfConfig")


@dataclass
class HfConfig(ColumnsConfig):
    """Keys of ``data=hf``."""

    name: str = "hf"
    path: str | None = None
    """A hub name (``owner/name``), a folder that ``save_to_disk`` wrote, or a data file or folder of them."""
    subset: str | None = None
    """The configuration of a hub data set that has several (``load_dataset`` calls it ``name``)."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set. null: its main branch."""
    train_split: str = "train"
    """The split to train on."""
    validation_split: str | None = None
    """null: the split called validation where there is one that no other key names, else set aside from the
    training rows by seed."""
    test_split: str | None = None
    """null: the split called test where there is one that no other key names, else set aside from the
    training rows by seed."""


class HubOrDisk(DataSource[C]):
    """Rows from ``data.path``, wherever that is."""

    def where(self, split: str) -> str:
        """``data.path`` and the split."""
        return f"data.path={self.config.path} ({split})"

    def check(self, allow_network: bool = True) -> None:
        """The path is readable here, or the hub answers for the name."""
        where = f"data.path={self.config.path}"
        if not self.config.path:
            raise InputError(
                f"data.path is not set: data={self.config.name} reads it. Give a hub name or a path."
            )
        path = expanded("data.path", self.config.path)
        if not path.exists():
            check_hub_name("data.path", self.config.path, allow_network)
            return
        self._check_keys(path)
        for split, file in ({} if is_saved(path) else self._files(path)).items():
            named = f"{where}: {file.name}" if path.is_dir() else where
            columns = check_file(named, file, skip=self._skip)
            if columns is not None:
                detect(self.config, columns, self.where(split))

    def rows(self, allow_network: bool = True) -> RawSplits:
        """All splits, by the names that the config gives."""
        self.check(allow_network)
        assert self.config.path is not None
        path = expanded("data.path", self.config.path)
        if path.exists() and not is_saved(path):
            return RawSplits(
                **{
                    split: load_file(self.where(split), file, skip=self._skip)
                    for split, file in self._files(path).items()
                }
            )
        return self._pick(self._load_saved(path) if is_saved(path) else self._load_hub(allow_network))

    @property
    def _skip(self) -> bool:
        return self.config.on_bad_row == "skip"

    def _files(self, path: Path) -> dict[str, Path]:
        return split_files(f"data.path={path}", path) if path.is_dir() else {"train": path}

    def _check_keys(self, path: Path) -> None:
        """Raise InputError for a key that a path on this disk does not read."""
        files = {} if is_saved(path) else self._files(path)
        read = {"subset": "", "revision": ""}
        read |= {f"{split}_split": split for split in SPLIT_STEMS} if files else {}
        for key, split in read.items():
            given = getattr(self.config, key)
            if given is None or (given == split and split in files):
                continue
            why = f"data.path={path} is no set of the hub. Leave it out."
            if split:
                why = (
                    f"files are told apart by their names, and data.path={path} has {', '.join(files)}. "
                    "Leave it out, or name the files: data=jsonl data.train_file=… data.test_file=…."
                )
            raise InputError(f"data.{key}={given} is not read: {why}")

    def _load_saved(self, path: Path) -> dict[str, Dataset]:
        from datasets import Dataset, load_from_disk

        try:
            loaded = load_from_disk(str(path))
        except Exception as error:  # whatever a damaged Arrow file makes its reader raise
            raise InputError(f"data.path={path} cannot be read: {error}") from error
        return {self.config.train_split: loaded} if isinstance(loaded, Dataset) else dict(loaded)

    def _load_hub(self, allow_network: bool) -> dict[str, Dataset]:
        import datasets

        assert self.config.path is not None
        before = datasets.config.HF_HUB_OFFLINE
        # A hub that does not answer is asked no further: what the cache holds is used at once.
        datasets.config.HF_HUB_OFFLINE = (
            before
            or not allow_network
            or bool(offline_asked())
            or ask(f"api/datasets/{self.config.path}") is None
        )
        try:
            with quiet_datasets():
                loaded = datasets.load_dataset(
                    self.config.path, name=self.config.subset, revision=self.config.revision
                )
        except Exception as error:  # hub, network, builder and reader errors share no base class
            raise InputError(f"data.path={self.config.path} cannot be loaded: {error}") from error
        finally:
            datasets.config.HF_HUB_OFFLINE = before
        return dict(loaded)

    def _pick(self, splits: dict[str, Any]) -> RawSplits:
        c = self.config
        for key in ("train_split", "validation_split", "test_split"):
            name = getattr(c, key)
            if name is not None and name not in splits:
                raise InputError(
                    f"data.{key}={name} is not a split of {c.path}.{did_you_mean(name, splits)} "
                    f"Its splits: {_listed(splits)}."
                )
        named = (c.train_split, c.validation_split, c.test_split)
        free = {name: rows for name, rows in splits.items() if name not in named}
        validation = splits[c.validation_split] if c.validation_split else free.get("validation")
        test = splits[c.test_split] if c.test_split else free.get("test")
        return RawSplits(splits[c.train_split], validation, test)


@register_data("hf", HfConfig)
class Hf(HubOrDisk[HfConfig]):
    """``data=hf``: nothing but the keys."""


def is_saved(path: Path) -> bool:
    """Whether ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote this folder."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def check_hub_name(key: str, name: str, allow_network: bool) -> None:
    """Raise InputError unless the hub knows this data set, or is silent and the local cache holds it."""
    where = f"{key}={name}"
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix in FORMATS
    if looks_local:
        raise InputError(
            f"{where}: no such file or folder. Give a path that exists, or a hub name (owner/name)."
        )
    offline = "run.allow_network=false" if not allow_network else offline_asked()
    status = None if offline else ask(f"api/datasets/{name}")
    if status in (401, 403, 404):
        raise InputError(
            f"{where}: the hub knows no such data set, or it is closed to you ({status}). Check the name; "
            "for a gated one accept its terms on the hub and set HF_TOKEN."
        )
    if status is None and not in_cache("datasets", name):
        reason = f"{offline} keeps the hub out" if offline else "the hub does not answer"
        raise InputError(
            f"{where} is no local file or folder, and {reason}, nor is it in the local cache. "
            "Give a local path, or run once with a network."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
