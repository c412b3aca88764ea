"""Whether two tokenizers give the same ids the same meaning. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distil.types import InputError


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one tokenizer: those it learnt and those added by hand (special ones, mostly)."""

    learnt: dict[str, int]
    added: dict[str, int]

    @property
    def tokens(self) -> dict[int, str]:
        """Every id and its token."""
        return {i: token for token, i in (self.learnt | self.added).items()}


def parse_vocabulary(text: str) -> Vocabulary:
    """The vocabulary in the text of a ``tokenizer.json`` (BPE, WordPiece, WordLevel or Unigram)."""
    content = json.loads(text)
    vocab = content["model"]["vocab"]
    learnt = vocab if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab)}
    added = {token["content"]: token["id"] for token in content.get("added_tokens") or []}
    return Vocabulary(learnt, added)


def read_vocabulary(file: Path) -> Vocabulary:
    """The vocabulary in ``file``, a ``tokenizer.json``. Raises InputError for anything else."""
    try:
        return parse_vocabulary(file.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{file} is not a tokenizer.json ({type(error).__name__}: {error}). Copy it again from its source"
        ) from error


def difference(teacher: Vocabulary, student: Vocabulary) -> str | None:
    """How the two differ, in words; None where they agree.

    They agree when every id that both have is the same token to both, and both learnt the same tokens.
    One may have more added tokens than the other (families pad and extend theirs).
    """
    theirs, ours = teacher.tokens, student.tokens
    wrong = sorted(i for i in theirs.keys() & ours.keys() if theirs[i] != ours[i])
    sizes = f"{len(theirs):,} tokens against {len(ours):,}"
    if wrong:
        examples = ", ".join(
            f"id {i} is {theirs[i]!r} to the teacher and {ours[i]!r} to the student" for i in wrong[:3]
        )
        shared = len(theirs.keys() & ours.keys())
        return f"{sizes}; {len(wrong):,} of the {shared:,} shared ids differ: {examples}"
    by_hand = teacher.added.keys() | student.added.keys()
    odd = sorted((teacher.learnt.keys() ^ student.learnt.keys()) - by_hand)
    if odd:
        whose = "teacher" if odd[0] in teacher.learnt else "student"
        return f"{sizes}; {len(odd):,} learnt tokens are in one only, such as {odd[0]!r} in the {whose}'s"
    return None


def check_same(teacher: Vocabulary, student: Vocabulary, names: tuple[str, str]) -> None:
    """Raise InputError where the two tokenizers differ; ``names`` are the labels of teacher and student."""
    how = difference(teacher, student)
    if how is not None:
        raise InputError(
            f"{names[0]} and {names[1]} have different tokenizers: {how}. A divergence compares what both "
            "say about one id, so they must agree. Choose a student of the teacher's family, make one from "
            "the teacher (model.student.path=null with model.student.keep_layers=… or "
            "model.student.init=random), or train without a teacher (method=sft model.teacher.path=null)."
        )
