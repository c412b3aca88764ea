"""Your own files: JSON Lines, JSON, CSV or Parquet, told by their extension."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distil.data.base import ColumnsConfig, DataSource, RawSplits, register_data
from distil.data.columns import detect
from distil.data.early import check_rows, small_rows
from distil.data.local import check_file, load_file
from distil.system.files import expanded
from distil.types import InputError


@dataclass
class JsonlConfig(ColumnsConfig):
    """Keys of ``data=jsonl``."""

    name: str = "jsonl"
    train_file: str | None = None
    """JSON Lines, JSON, CSV or Parquet, by its extension; of the other two as well."""
    validation_file: str | None = None
    """null: set aside from the training rows by seed."""
    test_file: str | None = None
    """null: set aside from the training rows by seed, likewise."""


@register_data("jsonl", JsonlConfig)
class Jsonl(DataSource[JsonlConfig]):
    """One file a split."""

    def where(self, split: str) -> str:
        """The key of the split's file; that of the training file where the split has none."""
        key = f"{split}_file" if getattr(self.config, f"{split}_file") else "train_file"
        return f"data.{key}={getattr(self.config, key)}"

    def check(self, allow_network: bool = True) -> None:
        """Every file exists, parses, and has the columns."""
        for split, path in self._files().items():
            where = self.where(split)
            # Of rows that may be left out, nobody knows yet which those are.
            rows = None if self._skip else small_rows(where, path)
            columns = check_file(where, path, skip=self._skip) if rows is None else rows.column_names
            shape = None if columns is None else detect(self.config, columns, where)
            if shape is not None and rows is not None:
                missing = {"validation", "test"} - self._files().keys() if split == "train" else ()
                check_rows(self.config, where, rows, shape, sorted(missing, reverse=True))

    def rows(self, allow_network: bool = True) -> RawSplits:
        """The rows of every file that is set."""
        return RawSplits(
            **{
                split: load_file(self.where(split), path, skip=self._skip)
                for split, path in self._files().items()
            }
        )

    @property
    def _skip(self) -> bool:
        return self.config.on_bad_row == "skip"

    def _files(self) -> dict[str, Path]:
        if not self.config.train_file:
            raise InputError("data.train_file is not set: data=jsonl reads it. Give data.train_file=PATH.")
        named = {split: getattr(self.config, f"{split}_file") for split in ("train", "validation", "test")}
        return {split: expanded(f"data.{split}_file", path) for split, path in named.items() if path}
