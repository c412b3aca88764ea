"""What a data source is: where raw rows come from. How rows become tokens is the same for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from distil.config.schema import DataConfig, check
from distil.registry import Registry
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Row: TypeAlias = Mapping[str, Any]
"""One raw row by column name; the values are whatever JSON, CSV or Parquet can hold."""


@dataclass
class ColumnsConfig(DataConfig):
    """Keys of every source: which columns hold what. null finds them among well-known names.

    Row shapes, in the order in which they are looked for: ``input_ids``; ``messages`` or ``conversations``; a
    prompt (``instruction``, ``prompt``, ``question``) with a response (``response``, ``output``,
    ``completion``, ``answer``) and perhaps a context (``context``, ``input``); ``text``.
    """

    prompt_column: str | None = None
    """What the student is asked."""
    response_column: str | None = None
    """What it learns to answer."""
    context_column: str | None = None
    """Material the prompt speaks about; may be empty in a row."""
    messages_column: str | None = None
    """Chat turns ({role, content}): the last assistant turn is the response, the rest before it the
    prompt."""
    text_column: str | None = None
    """Raw text: every token is scored."""
    prompt_template: str | None = None
    """The prompt as a format string over the row's columns, such as ``"Q: {question}\\nA: "`` (``\\n``: a
    line break within YAML's double quotes; in bash ``$'data.prompt_template="Q: {question}\\nA: "'``). null:
    the prompt as it is and, after a blank line, its context; without a chat template a column of another name
    than ``prompt`` is written in the Alpaca form (``### Instruction: … ### Input: … ### Response:``)."""
    split_special_tokens: bool = True
    """Special tokens that a row's text spells (``<|im_end|>``, ``</s>``) are characters, so that no row ends
    its turn or speaks in another role. false: tokens, for text that went through a template already."""
    text_prompt_tokens: int = 32
    """Raw text: how many leading tokens generation goes on from (at most half of the text)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.text_prompt_tokens >= 1,
            f"data.text_prompt_tokens must be at least 1, got {self.text_prompt_tokens}.",
        )


COLUMNS = ("prompt_column", "response_column", "context_column", "messages_column", "text_column")
"""Its keys that name a column."""

C = TypeVar("C", bound=ColumnsConfig)


class MalformedRow(InputError):
    """A row that is none: the message names its place. ``data.on_bad_row=skip`` leaves such rows out."""


def place_of(line: int, row: int) -> str:
    """How messages name a row: the line that it begins on, or where rows are not lines (0) its number."""
    return f"line {line}" if line else f"row {row}"


@contextmanager
def way_out() -> Iterator[None]:
    """Malformed rows are refused with the key that leaves them out."""
    try:
        yield
    except MalformedRow as error:
        raise InputError(f"{error} data.on_bad_row=skip leaves out such rows and lists them.") from error


@dataclass
class RawSplits:
    """Raw rows. A split that is None is set aside from ``train`` by seed."""

    train: Dataset | Sequence[Row]
    validation: Dataset | Sequence[Row] | None = None
    test: Dataset | Sequence[Row] | None = None


class DataSource(ABC, Generic[C]):
    """Where raw rows come from: one file, one config dataclass, one YAML."""

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def check(self, allow_network: bool = True) -> None:
        """Look at the source, cheaply, with the standard library. Raises InputError for what cannot work."""

    @abstractmethod
    def rows(self, allow_network: bool = True) -> RawSplits:
        """The raw rows. Raises InputError where they cannot be read."""

    def where(self, split: str) -> str:
        """The key and value that a message about this split names, such as ``data.train_file=my.jsonl``."""
        return f"data={self.config.name}"


DATA: Registry[type[DataSource[Any]]] = Registry("data", "distil.data")
register_data = DATA.register


def source_of(config: DataConfig) -> DataSource[Any]:  # Any: the registry holds sources of every config
    """The source that ``config.name`` names. Raises InputError for an unknown name."""
    return DATA.get(config.name).factory(config)


def check_data(config: DataConfig, allow_network: bool = True) -> None:
    """Look at the data set before anything heavy is imported. Raises InputError naming the way out."""
    with way_out():
        source_of(config).check(allow_network)
