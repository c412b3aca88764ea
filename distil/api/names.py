"""What a model's name is enough for: its tokenizer, and the size of its vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distil.api.calls import check_path, checked
from distil.api.errors import ArgumentError
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@checked("get_tokenizer")
def get_tokenizer(model_name: str | Path, *, allow_network: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a pad token: EOS where it came without one.

    Args:
        model_name: a hub name or a local folder. What the cache holds is used without asking the hub.
        allow_network: False never asks the hub.

    Returns:
        What ``AutoTokenizer`` gives, ready to pad.

    Raises:
        ValueError: where there is none, or where it knows no EOS token.
    """
    from distil.models import load_tokenizer

    with _named(model_name):
        return load_tokenizer(_config(model_name), allow_network=allow_network)[0]


@checked("get_vocab_size")
def get_vocab_size(model_name: str | Path, *, allow_network: bool = True) -> int:
    """How many ids a model gives a logit to, from its config alone: no weights are read.

    Args:
        model_name: a hub name or a local folder. What the cache holds is used without asking the hub.
        allow_network: False never asks the hub.

    Returns:
        A count of ids. Embeddings may be padded: it can be above the tokenizer's own count.

    Raises:
        ValueError: where there is no such model.
    """
    from transformers import AutoConfig

    from distil.models.load import from_source
    from distil.models.sources import student_source

    with _named(model_name):
        source = student_source(_config(model_name))
        config = from_source(AutoConfig.from_pretrained, source, allow_network)
    return int(config.get_text_config().vocab_size)


def alone(student: StudentConfig) -> ModelConfig:
    """A model without a teacher, as what loads models by their names takes it."""
    return ModelConfig("custom", TeacherConfig(), student)


def _config(name: str | Path) -> ModelConfig:
    return alone(StudentConfig(path=str(name)))


@contextmanager
def _named(name: str | Path) -> Iterator[None]:
    check_path("model_name", name)
    try:
        yield
    except InputError as error:
        text = str(error).replace("model.student.path=", "model_name=").rstrip(".")
        text = text.replace("run.allow_network=false", "allow_network=False")
        known = "Give a local folder" in text
        way_out = "" if known else " Give a local folder, or the name of a model that the hub has."
        raise ArgumentError(f"{text}.{way_out}") from error
