"""How a run asks its teacher: beside the student, or through caches that all runs share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainingArguments

from distil.config.schema import ExperimentConfig, MethodConfig
from distil.engine.anatomy import to_device
from distil.engine.evaluation import pad_id
from distil.engine.teacher_signal import TeacherSource
from distil.head import Head
from distil.identity import rows_digest
from distil.methods.base import Method
from distil.models import load_teacher
from distil.parts import Parts
from distil.processes import ranks
from distil.system.progress import Progress
from distil.teacher_cache.answers import CachedTeacher, ensure_head
from distil.teacher_cache.build import Entry, TeacherForward, ensure
from distil.teacher_cache.formats.base import CacheFormat, Size, format_of
from distil.teacher_cache.formats.hidden import Hidden, HiddenConfig
from distil.teacher_cache.keys import ingredients, key_of, teacher_print, tokenizer_print
from distil.teacher_cache.manifest import FOLDER, Manifest
from distil.teacher_cache.store import Reader
from distil.types import REFERENCE, ROLLOUT

logger = logging.getLogger(__name__)


def teacher_stays(config: ExperimentConfig, method: Method[MethodConfig]) -> bool:
    """Whether the teacher itself stays beside the student: nobody has stored what it will be asked."""
    return not format_of(config.teacher_cache).stores or method.asks_teacher_about(ROLLOUT)


class LazyTeacher:
    """The teacher itself, loaded where somebody asks for it, and let go again."""

    def __init__(self, config: ExperimentConfig, parts: Parts, device: torch.device) -> None:
        self._config = config
        self._beside = parts.teacher
        self._device = device
        self._loaded: PreTrainedModel | None = None

    def __call__(self) -> PreTrainedModel:
        """The model, on its device."""
        if self._beside is not None:
            return self._beside
        if self._loaded is None:
            logger.info("Loading the teacher itself: somebody asks what is not kept.")
            model = load_teacher(self._config.model, allow_network=self._config.run.allow_network)
            assert model is not None, "no teacher"
            to_device(model, self._device)
            self._loaded = model
        return self._loaded

    def release(self) -> None:
        """Give back the memory of a model that was loaded here."""
        self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class TeacherAccess:
    """Where each part of a run gets its teacher's signal."""

    model: LazyTeacher
    train: CachedTeacher | None
    """None: training asks the teacher itself, or nobody."""
    validation: TeacherSource | None
    """On the rows of the cheap evaluation."""
    test: TeacherSource | None
    facts: dict[str, Any] | None
    """Of the cache that training reads, for ``cost.json``."""


def open_teacher(
    config: ExperimentConfig,
    method: Method[MethodConfig],
    parts: Parts,
    arguments: TrainingArguments,
    progress: Progress,
) -> TeacherAccess:
    """Open the caches that this run reads, and build what is not there yet. Of several processes, the first
    builds.

    Evaluation always reads hidden states as the teacher computes them: whatever training reads, the scores
    are those that the teacher itself would give.
    """
    kept = format_of(config.teacher_cache)
    model = LazyTeacher(config, parts, arguments.device)
    if parts.teacher_facts is None or not kept.stores:
        return TeacherAccess(model, None, parts.teacher, parts.teacher, None)
    kept = kept.cut(parts.shared_vocabulary)
    caches = _Caches(config, parts, arguments, model, progress)
    train, facts = None, None
    if method.asks_teacher_about(REFERENCE):
        _warn(kept, method, caches.size(), parts.notes)
        train, manifest = caches.of("training", parts.splits.train, kept, mixed=True)
        facts = {"format": kept.config.name, "tokens": manifest.tokens, "bytes": manifest.size}
        facts |= {"built": caches.asked}
    if teacher_stays(config, method) or not config.eval.teacher:
        return TeacherAccess(model, train, parts.teacher, parts.teacher, facts)
    exact = Hidden(HiddenConfig())
    rows = parts.rows_while_training(config.eval)
    validation, _ = caches.of("validation", rows, exact, mixed=True)
    test, _ = caches.of("test", parts.splits.test, exact, mixed=False)
    return TeacherAccess(model, train, validation, test, facts)


def _warn(kept: CacheFormat[Any], method: Method[MethodConfig], size: Size, notes: list[str]) -> None:
    told = [kept.caution(term, size) for term in method.questions(REFERENCE)]
    for said in filter(None, dict.fromkeys(told)):
        notes.append(f"teacher_cache={kept.config.name}: {said}.")
        logger.warning(notes[-1], extra={"said_once": True})


class _Caches:
    """The caches of one run."""

    def __init__(
        self,
        config: ExperimentConfig,
        parts: Parts,
        arguments: TrainingArguments,
        teacher: LazyTeacher,
        progress: Progress,
    ) -> None:
        self.config = config
        self.parts = parts
        self.arguments = arguments
        self.teacher = teacher
        self.progress = progress
        self.root = Path(config.teacher_cache.folder or Path(config.output_dir) / FOLDER)
        self.tokenizer = tokenizer_print(parts.tokenizer)
        self.asked = False
        self._head: Head | None = None

    def of(
        self, split: str, rows: Dataset, kept: CacheFormat[Any], *, mixed: bool
    ) -> tuple[CachedTeacher, Manifest]:
        """What the teacher said about ``rows``; ``mixed``: in the precision of training."""
        autocast = self._autocast() if mixed else None
        head = self.head() if kept.needs_head else None
        entry = self._entry(split, rows.select_columns(["input_ids", "labels"]).to_list(), kept, autocast)

        def load() -> TeacherForward:
            self.asked = True
            return TeacherForward(self.teacher(), pad_id(self.parts.tokenizer), autocast)

        def build() -> None:
            with self.progress.bar(f"asking the teacher: {split} rows") as report:
                ensure(entry, load, self.progress.say, report)

        ranks.from_main(build)
        manifest = Manifest.read(entry.folder)
        assert manifest is not None, entry.folder
        reader = Reader(entry.folder, manifest)
        return CachedTeacher(reader, kept, head, self.arguments.device), manifest

    def head(self) -> Head:
        """The teacher's output head."""
        if self._head is None:
            key = {"teacher": self._print(None), "head": True}
            about = {"key": key, "teacher": self._name, "split": None}
            folder = self.root / f"head-{key_of(key)}"
            device, say = self.arguments.device, self.progress.say

            def build() -> None:
                ensure_head(folder, about, self.teacher, device, say)

            ranks.from_main(build)
            self._head = ensure_head(folder, about, self.teacher, device, say)
        return self._head

    def _entry(
        self,
        split: str,
        rows: Sequence[dict[str, Any]],
        kept: CacheFormat[Any],
        autocast: torch.dtype | None,
    ) -> Entry:
        shared = self.parts.shared_vocabulary
        key = ingredients(self._print(autocast), self.tokenizer, rows_digest(rows), kept, shared)
        about = {"key": key, "teacher": self._name, "split": split, "rows": len(rows)}
        folder = self.root / f"{kept.config.name}-{key_of(key)}"
        return Entry(folder, kept, about, rows, self.size(), self.config.eval.batch_size)

    def _print(self, autocast: torch.dtype | None) -> dict[str, Any]:
        return teacher_print(self.config, self.parts.base, autocast)

    @property
    def _name(self) -> str:
        return str(self.config.model.teacher.path)

    def size(self) -> Size:
        """What the size of an answer hangs on."""
        facts = self.parts.teacher_facts
        assert facts is not None
        chosen = self.config.model.teacher.dtype
        dtype = getattr(facts.config, "dtype", None) if chosen == "auto" else getattr(torch, chosen)
        hidden = facts.config.get_text_config().hidden_size
        return Size(self.parts.shared_vocabulary, hidden, (dtype or torch.float32).itemsize)

    def _autocast(self) -> torch.dtype | None:
        if self.arguments.bf16:
            return torch.bfloat16
        return torch.float16 if self.arguments.fp16 else None
