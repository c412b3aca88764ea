"""Modules for Hugging Face ``evaluate``, shipped with us: ``evaluate.load("rouge")`` would ask the hub.

``evaluate`` copies the file into its cache and imports the copy, so each module stands alone: it imports
nothing of ours, one name a line, without comments (which would be read as where to download from).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_module(name: str, predictions: Sequence[str], references: list[list[str]]) -> dict[str, Any]:
    """What the shipped module ``name`` computes. Imports ``evaluate``, which takes seconds."""
    import evaluate

    # In memory: no file of predictions is left behind, and parallel runs cannot meet in one.
    module = evaluate.load(str(Path(__file__).parent / name), module_type="metric", keep_in_memory=True)
    result: dict[str, Any] = module.compute(predictions=list(predictions), references=references)
    return result


def as_reference_lists(
    predictions: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]
) -> list[list[str]]:
    """One list of references a prediction. Raises ValueError where the two do not pair up."""
    given: dict[str, Any] = {"predictions": predictions, "references": references}
    for name, texts in given.items():
        if isinstance(texts, str):  # a list of letters, to Python
            raise ValueError(f"{name} is one text: give a list, {name}=[…].")
        if not isinstance(texts, Sequence):  # a column of a data set is one
            raise ValueError(f"{name} is a {type(texts).__name__}: give a list of texts, list({name}).")
    for index, text in enumerate(predictions):
        if not isinstance(text, str):
            raise ValueError(f"predictions[{index}] is a {type(text).__name__}: give a text.")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions but {len(references)} references: give one each.")
    if not predictions:
        raise ValueError("there are no predictions to score.")
    lists: list[Any] = [list(each) if isinstance(each, (list, tuple)) else [each] for each in references]
    for index, texts in enumerate(lists):
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"references[{index}]={references[index]!r}: give a text, or a list of texts.")
        if not texts:
            raise ValueError(f"references[{index}] is empty: every prediction needs at least one reference.")
    return lists
