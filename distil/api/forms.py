"""A user's data set, in any of its forms, as rows of plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distil.api.errors import ArgumentError
from distil.data.columns import PROMPT_NAMES, TEXT_NAMES
from distil.data.converters import are_rows
from distil.data.local import FORMATS

PLAIN_BATCHES = """{name} is a DataLoader whose batches are no tensors of rows: torch's own collate takes
rows that are lists apart, and those of several lengths, or with None, not at all. Give the data set itself,
without a DataLoader; or one over dataset.with_format("torch"), with rows of one length; or one that pads:
    DataLoader(dataset, collate_fn=DataCollatorWithPadding(tokenizer))"""
"""What torch's default collate makes of a data set whose rows are lists, and the ways out."""


def plain_rows(dataset: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """The rows of ``dataset`` one by one, as plain values."""
    columns = list(dataset.values()) if isinstance(dataset, Mapping) else []
    if columns and all(isinstance(c, list) and not any(isinstance(x, Mapping) for x in c) for c in columns):
        raise ArgumentError(f"{name} is a dict of lists: give datasets.Dataset.from_dict({name}).")
    if type(dataset).__module__.startswith("pandas"):
        raise ArgumentError(
            f"{name} is a {type(dataset).__name__}: give datasets.Dataset.from_pandas({name})."
        )
    if isinstance(dataset, (str, Path)) and (kind := FORMATS.get(Path(dataset).suffix.lower())):
        raise ArgumentError(
            f"{name} is the name of a file. Give its rows: "
            f'datasets.load_dataset("{kind}", data_files="{dataset}", split="train").'
        )
    if isinstance(dataset, Mapping):
        raise ArgumentError(_of_mapping(dataset, name))
    if dataset is None or isinstance(dataset, (str, bytes)) or not _has_rows(dataset):
        what = repr(dataset) if isinstance(dataset, str) else f"a {type(dataset).__name__}"
        raise ArgumentError(
            f"{name} is {what}: give a data set, as datasets.load_dataset(…) or load_from_disk(…) returns."
        )
    loaded = getattr(dataset, "with_format", None)
    if loaded is not None and hasattr(dataset, "features"):
        dataset = loaded(None)  # plain lists, whatever format the user's loop wants
    for row in _each(dataset, name):
        if _is_batch(row):
            yield from _of_batch(row)
        elif _is_taken_apart(row, of_loader=_is_loader(dataset)):
            raise ArgumentError(PLAIN_BATCHES.format(name=name))
        elif isinstance(row, Mapping):
            yield row
        else:
            raise ArgumentError(
                f"{name} holds rows of type {type(row).__name__}: give dicts with input_ids or text "
                '({"text": …}, {"prompt": …, "response": …}), or a datasets.Dataset.'
            )


def _of_mapping(dataset: Mapping[str, Any], name: str) -> str:
    """What to give in place of a mapping: one row, one batch, or splits."""
    if "input_ids" in dataset:
        rows = f"datasets.Dataset.from_dict({{key: list(value) for key, value in {name}.items()}})"
        return f"{name} is one batch, as a tokenizer returns it. Give its rows: {rows}."
    cells = all(isinstance(value, (str, int, float, list)) for value in dataset.values())
    if cells and not all(map(are_rows, dataset.values())):
        return f"{name} is one row: give a list of rows, [{name}]."
    held_out = [one for one in dataset if str(one) in ("validation", "test")]
    split = "train" if "train" in dataset else next(iter(dataset))
    if name == "eval_dataset" and held_out:
        split = held_out[0]
    splits = ", ".join(map(str, dataset))
    return f"{name} is a {type(dataset).__name__} of splits ({splits}): give one, {name}=data[{split!r}]."


def _each(dataset: Any, name: str) -> Iterator[Any]:
    """What ``dataset`` yields, or its items by number."""
    if not hasattr(dataset, "__iter__"):
        yield from (dataset[i] for i in range(len(dataset)))
        return
    try:
        yield from dataset
    except (RuntimeError, TypeError) as error:
        if "each element in list of batch" not in str(error) and "default_collate" not in str(error):
            raise
        raise ArgumentError(PLAIN_BATCHES.format(name=name)) from error


def _has_rows(dataset: Any) -> bool:
    return hasattr(dataset, "__iter__") or (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"))


def _is_loader(dataset: Any) -> bool:
    from torch.utils.data import DataLoader

    return isinstance(dataset, DataLoader)


def _is_batch(row: Any) -> bool:
    """Whether ``row`` is a batch: tensors of two dimensions, or as many texts as all other columns hold."""
    if not isinstance(row, Mapping):
        return False
    if "input_ids" in row:
        return getattr(row["input_ids"], "ndim", 1) == 2
    texts = _texts(row)
    return texts > 0 and all(_rows_in(column) == texts for column in row.values())


def _is_taken_apart(row: Any, *, of_loader: bool) -> bool:
    """Whether ``row`` is a batch that torch's own collate made of lists: an entry for each position."""
    if not isinstance(row, Mapping):
        return False
    ids = row.get("input_ids")
    if ids is None:
        return of_loader and _texts(row) > 1
    return isinstance(ids, (list, tuple)) and bool(ids) and getattr(ids[0], "ndim", 0) == 1


def _texts(row: Mapping[str, Any]) -> int:
    """How many prompts, or texts, ``row`` lists; 0: it has one, or none."""
    columns = [row[name] for name in (*PROMPT_NAMES, *TEXT_NAMES) if isinstance(row.get(name), (list, tuple))]
    return max((len(c) for c in columns if all(x is None or isinstance(x, str) for x in c)), default=0)


def _rows_in(column: Any) -> int:
    """How many rows' cells ``column`` holds; 0: it is one cell, or is taken apart."""
    if not isinstance(column, (list, tuple)):
        return len(column) if getattr(column, "ndim", 0) else 0
    apart = bool(column) and (isinstance(column[0], tuple) or getattr(column[0], "ndim", 0) == 1)
    return 0 if apart else len(column)


def _of_batch(batch: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    plain = {key: value.tolist() if hasattr(value, "tolist") else list(value) for key, value in batch.items()}
    for values in zip(*plain.values(), strict=True):
        yield dict(zip(plain, values, strict=True))
