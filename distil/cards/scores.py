"""The measured part of a card: its sentence, its table, the hub's own list of scores, and samples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distil.cards.text import fenced, plain, table
from distil.data.local import FORMATS
from distil.report import words
from distil.report.run_directory import Metric, Results, Sample

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from distil.cards.subject import Subject


_SENTENCE = re.compile(r"(?<=[.?!]) (?=[A-Z])")
_ADVICE = re.compile(r"\?$|^Without the headings|^(Add|Give|Leave|Set|Take|Try) |=\S+ sets more aside")
"""Sentences to whoever ran it."""


def first_score(results: Results | None) -> str:
    """How far the first metric went, in one sentence; empty where nothing was measured."""
    metric = next(iter(results.metrics), None) if results else None
    if results is None or metric is None or results.after.get(metric.name) is None:
        return ""
    before, after = (words.score(side.get(metric.name), metric) for side in (results.before, results.after))
    told = (results.teacher or {}).get(metric.name)
    beside = f"; the teacher is at {words.score(told, metric)}" if told is not None else ""
    unit = f" {metric.unit}" if metric.unit else ""
    return f"On held-out rows its {plain(metric.name)} went from {before} to {after}{unit}{beside}."


def score_list(subject: Subject) -> list[EvalResult]:
    """Every score of the student, as a hub reads them."""
    from huggingface_hub import EvalResult

    results, data, source = subject.record.results, subject.data, subject.config.data
    if results is None:
        return []
    suffix = Path(data.name).suffix.lower()
    form = suffix.removeprefix(".") if suffix in FORMATS else source.name
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=data.hub or form,
            dataset_name=data.name,
            dataset_split="test",
            metric_type=metric.name,
            metric_value=float(f"{value:.6g}"),
            metric_name=f"{metric.name} ({metric.unit})" if metric.unit else metric.name,
        )
        for metric in results.metrics
        if (value := results.after.get(metric.name)) is not None
    ]


def score_parts(results: Results | None) -> Iterator[str]:
    """Heading, table and what it means."""
    if results is None:
        return
    yield "## Results"
    yield table(_rows(results))
    told = ["↑ higher is better, ↓ lower is better. *before*: the same student, untouched."]
    told += [f"{words.FLOOR.capitalize()}."] if results.floor else []
    yield " ".join([*told, words.evaluated_on(results), *map(plain, _notes(results))])
    meant = [f"* {plain(m.name)}: {plain(m.description)}" for m in results.metrics if m.description]
    if meant:
        yield "\n".join(["<details><summary>What is measured</summary>\n", *meant, "\n</details>"])


def _notes(results: Results) -> Iterator[str]:
    """The run's notes without what they say to whoever ran it: questions and ways out."""
    for note in words.notes(results):
        said = [each for each in _SENTENCE.split(note) if not _ADVICE.search(each)]
        if said:
            yield " ".join(said)


def _rows(results: Results) -> Iterator[list[str]]:
    teacher = [results.teacher] if results.teacher else []
    floor = [results.floor] if results.floor else []
    yield ["", *["teacher" for _ in teacher], "before", "**this model**", *["floor" for _ in floor]]
    for metric in results.metrics:
        name = metric.name
        beside = [words.score(scores.get(name), metric) for scores in (*teacher, results.before)]
        known = ["" if side.get(name) is None else words.score(side[name], metric) for side in floor]
        yield [_label(metric), *beside, f"**{words.score(results.after.get(name), metric)}**", *known]


def _label(metric: Metric) -> str:
    unit = f" ({plain(metric.unit)})" if metric.unit else ""
    return f"{plain(metric.name)} {words.arrow(metric)}".rstrip() + unit


def sample_parts(samples: Sequence[Sample]) -> Iterator[str]:
    """Prompts and answers, inside fences: they may be any text."""
    if samples:
        yield "## Samples"
        yield "Held-out prompts, the first of those that were answered, not picked."
    for sample in samples:
        yield f"Prompt:\n\n{fenced(sample.prompt)}"
        for who, text in (("This model", sample.after), ("Teacher", sample.teacher)):
            if text is not None:
                yield f"{who}:\n\n{fenced(text)}"
