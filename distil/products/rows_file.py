"""Rows of a file that the models of a finished run are evaluated on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distil.data.base import COLUMNS, ColumnsConfig
from distil.data.columns import Kind, Shape, detect, listed, renamed, template_fields
from distil.data.early import check_rows, small_rows
from distil.data.jsonl import JsonlConfig
from distil.data.local import check_file, load_file, shows_all_columns
from distil.data.prompting import ending_of
from distil.data.raw_rows import columns_of
from distil.data.row_notes import context_note
from distil.data.splits import encode_rows
from distil.data.turns import system_of
from distil.products.finished_run import FinishedRun
from distil.system.files import expanded
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RowsFile:
    """A file whose rows are encoded as those of ``run`` are.

    ``named``: columns by config key. Where none is named, the run's own names count if the file has them all.
    """

    run: FinishedRun
    file: Path
    named: Mapping[str, str]

    def check(self) -> None:
        """Look at the file without a tokenizer. Raises InputError for what cannot be evaluated."""
        path = expanded("--data", self.file)
        with self._in_flags():
            rows = None if self._skip else small_rows(self._where, path)
            columns = check_file(self._where, path, skip=self._skip) if rows is None else rows.column_names
            if columns is not None and shows_all_columns(path):
                config, shape = self._read(columns)
                if rows is not None:
                    check_rows(config, self._where, rows, shape, ())

    def encoded(self, tokenizer: PreTrainedTokenizerBase, longest: int) -> tuple[Dataset, list[str]]:
        """All rows that can be scored, of at most ``longest`` tokens, and notes: on rows that cannot, or are
        cut. Prompts that are written as they are end with the line break that those of the run have.

        Raises InputError like ``check``, and where no row has a scored token.
        """
        raw = load_file(self._where, expanded("--data", self.file), skip=self._skip)
        limit = min(self._own.max_length, longest)
        with self._in_flags():
            config, shape = self._read(columns_of(raw))
            config = replace(config, max_length=limit)
            ending, headings = ending_of(self.run.prompts), _headings(self.run)
            rows, notes = encode_rows(config, raw, tokenizer, self._where, ending, headings)
        asked = self.run.shape
        if asked.kind is Kind.PAIR and asked.context and shape.context is None:
            notes.append(
                f"The prompts of the run had a context (its column {asked.context}), and no column here is "
                "read as one: --context-column NAME."
            )
        else:
            unread = context_note(shape, raw[0], "The prompts of the run had no context, either.")
            notes += [] if unread is None else [unread]
        if asked.kind is Kind.MESSAGES and system_of(self.run.prompts) and not system_of(rows["prompt"]):
            notes.append(
                "The prompts of the run had a system message each, and those here have none: give rows of "
                "messages."
            )
        if limit < self._own.max_length:
            takes = f"the {limit} tokens that the models take"
            notes = [note.replace(f"data.max_length={limit}", takes) for note in notes]
        return rows, notes

    @property
    def _where(self) -> str:
        return f"--data {self.file}"

    @property
    def _own(self) -> ColumnsConfig:
        own = self.run.config.data
        assert isinstance(own, ColumnsConfig)
        return own

    @property
    def _skip(self) -> bool:
        return self._own.on_bad_row == "skip"

    def _read(self, columns: Collection[str]) -> tuple[JsonlConfig, Shape]:
        """How rows of these columns are read."""
        own = {key.name: getattr(self._own, key.name) for key in fields(ColumnsConfig) if key.name != "name"}
        keys = own | dict.fromkeys(COLUMNS) | {"prompt_template": None}
        chosen = _columns(self._own, self.named, columns, self._where)
        config = JsonlConfig(train_file=str(self.file), **keys | chosen)
        return config, detect(config, columns, self._where)

    @contextmanager
    def _in_flags(self) -> Iterator[None]:
        """What is said about keys of ``data`` is said about the flags that stand for them."""
        try:
            yield
        except InputError as error:
            text = str(error).replace(" (or data.prompt_template)", "")
            for key in COLUMNS:
                text = text.replace(f"data.{key}", f"--{key.replace('_', '-')}")
            raise InputError(text) from error


def _headings(run: FinishedRun) -> bool | None:
    """Whether the run's prompts had headings; None where it is not for them to say."""
    known = run.record.results is not None or run.recorded_shape is not None
    pairs = run.shape.kind is Kind.PAIR and run.shape.template is None
    return run.shape.headings if known and pairs else None


def _columns(
    own: ColumnsConfig, given: Mapping[str, str], there: Collection[str], where: str
) -> dict[str, str | None]:
    """Which columns of a file are what, and the template of its prompts: that of the run, in any case.

    Raises InputError where the file lacks what the template names.
    """
    theirs = {key: getattr(own, key) for key in COLUMNS if getattr(own, key) is not None}
    keys: dict[str, str | None] = dict(given)
    if not given and set(theirs.values()) <= set(there):
        keys = theirs
    template, parts = own.prompt_template, template_fields(own.prompt_template)
    if template is None or "text_column" in given or "messages_column" in given:
        return keys
    if "prompt_column" in given and len(parts) == 1:
        mine = renamed(template, parts[0], given["prompt_column"])
        return keys | {"prompt_column": None, "prompt_template": mine}
    if missing := [name for name in parts if name not in there]:
        way_out = "--prompt-column NAME says which it is" if len(parts) == 1 else "call its columns so"
        raise InputError(
            f"{where} has no column {', '.join(missing)}, of which the prompts of this run are written "
            f"(data.prompt_template={template!r}): {way_out}. {listed(there)}"
        )
    if "prompt_column" in given:
        raise InputError(
            f"--prompt-column {given['prompt_column']}: the prompts of this run are written of "
            f"{', '.join(parts)} (data.prompt_template={template!r}), and {where} has them. Leave it out."
        )
    return keys | {"prompt_template": template}
