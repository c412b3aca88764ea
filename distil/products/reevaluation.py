"""A finished run's student and teacher, ready to answer and to be evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distil.config.schema import EvalConfig
from distil.data.encode import stop_ids
from distil.data.row_notes import shared_note
from distil.data.splits import load_splits
from distil.engine.anatomy import position_limit
from distil.identity import rows_digest
from distil.methods.base import method_of
from distil.metrics.base import METRICS, Need
from distil.models import shared_vocabulary
from distil.parts import ending_ids
from distil.preflight import data_fingerprints
from distil.products.finished_run import FinishedRun
from distil.products.loading import load_product, load_run_teacher, load_tokenizer, teacher_ends
from distil.report.run_directory import mapping
from distil.system.environment import use_threads
from distil.types import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Pair:
    """Both models of a run, and what they share."""

    tokenizer: PreTrainedTokenizerBase
    student: PreTrainedModel
    teacher: PreTrainedModel | None
    eos_ids: tuple[int, ...]
    shared_vocabulary: int


def load_pair(run: FinishedRun, *, teacher: bool) -> Pair:
    """Student and, where asked for, teacher. As many threads as in the run: numbers are then the same."""
    use_threads(run.config.run.threads)
    tokenizer = load_tokenizer(run)
    student = load_product(run)
    theirs = load_run_teacher(run, student) if teacher else None
    stops = ending_ids(stop_ids(run.config.data, tokenizer), theirs, student)
    if theirs is None and loads_teacher(run):  # the run ended its answers where the teacher would, too
        stops = tuple(sorted({*stops, *teacher_ends(run)}))
    return Pair(tokenizer, student, theirs, stops, shared_vocabulary(theirs, student, tokenizer))


def evaluates_teacher(run: FinishedRun) -> bool:
    """Whether the run evaluated its teacher beside its student."""
    return run.config.model.teacher.path is not None and run.config.eval.teacher


def loads_teacher(run: FinishedRun) -> bool:
    """Whether the run had its teacher loaded: its end of text then ends the student's answers too."""
    config = run.config
    method = method_of(config.method)
    return config.model.teacher.path is not None and (method.needs_teacher or config.eval.teacher)


def own_rows(run: FinishedRun, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, list[str]]:
    """The run's own test rows, and a note where they are not those that it evaluated."""
    rows = load_splits(run.config.data, tokenizer, allow_network=run.config.run.allow_network).test
    results = run.record.results
    digest = None if results is None else results.evaluation.get("rows_digest")
    same = digest is None or digest == rows_digest(rows)
    return rows, [] if same else ["The data changed since: these are not the test rows of the run."]


def trained_on(run: FinishedRun, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A note on those of ``rows`` that the run was trained on; none where its data are gone or changed."""
    recorded = mapping(run.record.environment.get("fingerprints"))
    then = {key: value for key, value in recorded.items() if key.startswith("data.")}
    try:
        if then != data_fingerprints(run.config.data):
            return []
        train = load_splits(run.config.data, tokenizer, allow_network=run.config.run.allow_network).train
    except (InputError, OSError):
        return []
    note = shared_note(train, {"given": rows})
    return [] if note is None else [note]


def longest_row(*models: PreTrainedModel | None) -> int:
    """How many tokens every one of them takes."""
    limits = [position_limit(model) for model in models if model is not None]
    return min((limit for limit in limits if limit is not None), default=2**31)


def fitting(config: EvalConfig, rows: Dataset) -> tuple[EvalConfig, list[str]]:
    """``config`` without the metrics that want slots where ``rows`` have none, and a note on each."""
    if "slots" in rows.column_names and any(rows["slots"]):
        return config, []
    wants = [name for name in config.metrics if Need.SLOTS in METRICS.get(name).factory.requires]
    kept = [name for name in config.metrics if name not in wants]
    return replace(config, metrics=kept), [f"{name} is left out: these rows have no slots." for name in wants]
