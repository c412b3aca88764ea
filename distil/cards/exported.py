"""The card of an exported student, which a hub shows, written from its run directory.

The opening lines between ``---`` are metadata of the hub (base model, license, data set, scores); the text
below is for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distil.cards.making import making_parts
from distil.cards.scores import first_score, sample_parts, score_list, score_parts
from distil.cards.subject import Subject
from distil.cards.text import plain
from distil.report import words

if TYPE_CHECKING:
    from distil.origins import Origin


@dataclass(frozen=True)
class CardOptions:
    """What whoever exports has to say."""

    title: str | None = None
    """The heading; None: what it is a student of."""
    license: str | None = None
    """SPDX id in place of the source model's."""
    samples: int = 3
    """How many of the run's answers are shown."""


def model_card(subject: Subject, usage: str, options: CardOptions) -> str:
    """The README.md. ``usage``: Python that loads the student and lets it answer."""
    title, record = options.title or subject.title, subject.record
    parts = [
        _metadata(subject, title, options.license or subject.start.license),
        f"# {plain(title)}",
        " ".join(filter(None, (_opening(subject), first_score(record.results)))),
        f"## Use\n\n```python\n{usage}\n```",
        *score_parts(record.results),
        *sample_parts(record.samples[: options.samples]),
        *making_parts(subject),
        f"## Limits\n\n{' '.join(_limits(subject.teacher))}",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(subject: Subject, title: str, license: str | None) -> str:
    from huggingface_hub import ModelCardData

    config, data = subject.config, subject.data
    peft = config.peft.name if subject.kind == "adapter" else None
    base = None if config.model.student.init == "random" else subject.start.hub
    relation = "adapter" if peft else "finetune"
    card = ModelCardData(
        base_model=base,
        base_model_relation=relation if base else None,
        datasets=[data.hub] if data.hub else None,
        library_name="peft" if peft else "transformers",
        license=license,
        model_name=title,
        pipeline_tag="text-generation",
        tags=["distillation", "distil-runner", config.method.name, *([peft] if peft else [])],
        eval_results=score_list(subject) or None,
    )
    return f"---\n{card.to_yaml().strip()}\n---"


def _opening(subject: Subject) -> str:
    """What it is, in one sentence."""
    size, trained = subject.parameters("student"), subject.parameters("trainable")
    what = f"a language model of {words.parameters(size)} parameters" if size else "a language model"
    if subject.kind == "adapter":
        share = f" of {words.parameters(trained)} parameters" if trained else ""
        what = f"an adapter ({subject.config.peft.name}){share} for {subject.start.link}{subject.changed}"
        what += f" ({words.parameters(size - trained)})" if size and trained else ""
    teacher = subject.teacher
    if teacher is None:
        return f"This is {what}, trained on examples alone, without a teacher."
    whose = subject.parameters("teacher")
    large = f" ({words.parameters(whose)} parameters)" if whose else ""
    return f"This is {what} that learnt from {teacher.link}{large} by knowledge distillation."


def _limits(teacher: Origin | None) -> Iterator[str]:
    yield "It was evaluated on rows of the kind that it was trained on, after one run, and on nothing else."
    if teacher is not None:
        yield "What its teacher gets wrong or says unfairly it may say too, and more often."
    yield "Nobody has checked its answers for truth or harm: do that for your use before you rely on them."
