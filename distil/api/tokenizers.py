"""The tokenizers of both models, as far as they are on this machine: found, and held against each other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from distil.api.errors import require
from distil.api.names import alone
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distil.models.sources import Source

logger = logging.getLogger(__name__)


def local_tokenizer(*names: str | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the first of these models that is on this machine; no hub is asked."""
    from distil.models import load_tokenizer

    for name in names:
        if name:
            try:
                return load_tokenizer(alone(StudentConfig(path=name)), allow_network=False)[0]
            except InputError:
                continue
    return None


def has_chat_template(tokenizer: PreTrainedTokenizerBase | None) -> bool:
    """Whether it writes prompts as chats."""
    return bool(getattr(tokenizer, "chat_template", None))


def check_same_tokens(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Raise ArgumentError where both models' tokenizers are on this machine and read ids differently."""
    from distil.models.vocabulary import difference, read_vocabulary

    names = _names(teacher, student)
    files = [source.file("tokenizer.json") for source in _sources(teacher, student)]
    if not files or files[0] is None or files[1] is None or files[0].read_bytes() == files[1].read_bytes():
        return
    how = difference(read_vocabulary(files[0]), read_vocabulary(files[1]))
    require(
        how is None,
        f"teacher_model ({names[0]}) and student_model ({names[1]}) have different tokenizers: {how}. A "
        "divergence compares what both say about one id: choose a student of the teacher's family.",
    )


def warn_of_endings(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Say so where both tokenizers are on this machine and end a response, or write a chat, differently."""
    from distil.models import load_tokenizer

    sources = _sources(teacher, student)
    held = [[_content(source.file(name)) for name in SETTINGS] for source in sources]
    if not held or held[0] == held[1] or not all(map(any, held)):
        return
    try:
        notes = load_tokenizer(_pair(teacher, student), allow_network=False)[1]
    except InputError:  # no tokenizer that could be read, which is said when one is needed
        return
    for note in notes:
        logger.warning(note)


SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files that say how a tokenizer is used, beside its vocabulary."""


def _content(file: Path | None) -> bytes:
    return b"" if file is None else file.read_bytes()


def _names(*models: PreTrainedModel) -> list[str]:
    return [str(getattr(model, "name_or_path", "") or "") for model in models]


def _pair(teacher: PreTrainedModel, student: PreTrainedModel) -> ModelConfig:
    names = _names(teacher, student)
    return ModelConfig("custom", TeacherConfig(path=names[0]), StudentConfig(path=names[1]))


def _sources(teacher: PreTrainedModel, student: PreTrainedModel) -> list[Source]:
    """Where the two came from; empty where one of them came from nowhere, or is gone by now."""
    from distil.models.sources import student_source, teacher_source

    if not all(_names(teacher, student)):
        return []
    config = _pair(teacher, student)
    try:
        sources = [teacher_source(config), student_source(config)]
    except InputError:
        return []
    return [] if None in sources else [source for source in sources if source is not None]
