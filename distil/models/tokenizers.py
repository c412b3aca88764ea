"""The one tokenizer of a run, and the ids that teacher and student share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from distil.config.schema import ModelConfig
from distil.models.sources import Source, student_source, teacher_source
from distil.models.vocabulary import Vocabulary, check_same, parse_vocabulary
from distil.system.quiet import quiet_transformers
from distil.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)


def load_tokenizer(
    config: ModelConfig, *, allow_network: bool = True
) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The student's tokenizer (the teacher's where the student has none), and notes the user should read.

    It has a pad token: EOS where it came without one, so that no embedding is resized. Raises InputError
    where there is no tokenizer, where it knows no EOS, or where the teacher reads the same ids otherwise.
    """
    teacher, student = teacher_source(config), student_source(config)
    ours = _load(student, allow_network)
    theirs = ours
    if teacher is not None and not _same(teacher, student):
        theirs = _load(teacher, allow_network)
    tokenizer = ours or theirs
    if tokenizer is None:
        raise InputError(
            f"{student.label}: no tokenizer there{' nor with the teacher' if teacher else ''}. "
            "Copy tokenizer.json and tokenizer_config.json of its family into the folder."
        )
    notes: list[str] = []
    if teacher is not None and ours is not None and theirs is None:
        notes.append(f"{teacher.label} has no tokenizer: it is taken to read ids as the student's does.")
    if teacher is not None and ours is not None and theirs is not None and ours is not theirs:
        check_same(_vocabulary(theirs), _vocabulary(ours), (teacher.label, student.label))
        notes += _differences(theirs, ours)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{student.label}: its tokenizer names no EOS token, so no response could end. "
            "Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, notes


def shared_vocabulary(
    teacher: PreTrainedModel | None, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> int:
    """How many ids, counted from 0, both models give a logit to: divergences are over these.

    Embeddings of one family are padded to different sizes. Raises InputError where a model knows fewer ids
    than the tokenizer gives.
    """
    largest = max(tokenizer.get_vocab().values())
    sizes = {"model.student.path": _logits(student)}
    if teacher is not None:
        sizes["model.teacher.path"] = _logits(teacher)
    for key, size in sizes.items():
        if size <= largest:
            raise InputError(
                f"{key}: the model knows {size:,} ids, but the tokenizer gives ids up to {largest:,}. "
                "Take the tokenizer that belongs to the model."
            )
    shared = min(sizes.values())
    if len(set(sizes.values())) > 1:
        log.info(
            "Embeddings differ in size (%s): divergences are over the %s shared ids.", sizes, f"{shared:,}"
        )
    return shared


def _logits(model: PreTrainedModel) -> int:
    """Width of the model's logits."""
    untyped: Any = model.get_output_embeddings
    head = untyped()
    if head is None:
        return int(model.config.get_text_config().vocab_size)
    return int(getattr(head, "out_features", None) or head.weight.shape[0])


def _same(teacher: Source, student: Source) -> bool:
    return (teacher.location, teacher.revision, teacher.gguf_file) == (
        student.location,
        student.revision,
        student.gguf_file,
    )


def _load(source: Source, allow_network: bool) -> PreTrainedTokenizerBase | None:
    """The tokenizer of ``source``; None where it has none."""
    from transformers import AutoTokenizer

    from distil.models.fetch import fetch
    from distil.models.load import from_source, user_error

    if source.folder is not None and source.gguf_file is None and not any(map(source.file, TOKENIZER_FILES)):
        return None
    with user_error(source, allow_network):
        fetch(source, allow_network, weights=False)
    with quiet_transformers():
        loaded: PreTrainedTokenizerBase = from_source(AutoTokenizer.from_pretrained, source, allow_network)
    return loaded


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return parse_vocabulary(backend.to_str())
    added = tokenizer.get_added_vocab()
    return Vocabulary({t: i for t, i in tokenizer.get_vocab().items() if t not in added}, dict(added))


def _differences(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> list[str]:
    """What agrees in ids but not in use: responses end or begin otherwise, and lengths explode."""
    notes = []
    if teacher.eos_token_id != student.eos_token_id:
        notes.append(
            f"Teacher and student end a response with different tokens ({teacher.eos_token!r}, "
            f"{student.eos_token!r}): the teacher rarely says the student's, so responses may grow long."
        )
    if teacher.chat_template != student.chat_template:
        how = "differ in their chat template"
        if not teacher.chat_template or not student.chat_template:
            how = f"differ: only the {'teacher' if teacher.chat_template else 'student'} has a chat template"
        notes.append(f"Teacher and student {how}: prompts are written as the student's tokenizer does.")
    return notes
