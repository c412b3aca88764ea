"""A finished run's student and teacher, ready to answer and to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distil.config.schema import EvalConfig
from distil.data.base import COLUMNS, ColumnsConfig
from distil.data.columns import Kind, detect, listed, renamed, template_fields
from distil.data.encode import stop_ids
from distil.data.jsonl import JsonlConfig
from distil.data.local import load_file
from distil.data.prompting import ending_of
from distil.data.raw_rows import RawRows, columns_of
from distil.data.row_notes import shared_note
from distil.data.splits import encode_rows, load_splits
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


def rows_of_file(
    run: FinishedRun,
    file: Path,
    named: dict[str, str | None],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
) -> tuple[Dataset, list[str]]:
    """All rows of ``file`` that can be scored, encoded as the run's are (prompts that are written as they are
    end with the line break that those of the run have), and notes: on rows that cannot, or are cut.

    ``named``: columns by config key. Where none is named, the run's own names count if the file has them all.
    """
    own = run.config.data
    assert isinstance(own, ColumnsConfig)
    where = f"--data {file}"
    raw = load_file(where, file.expanduser(), skip=own.on_bad_row == "skip")
    given = {key: value for key, value in named.items() if value is not None}
    limit = min(own.max_length, longest)
    as_own = {key.name: getattr(own, key.name) for key in fields(ColumnsConfig) if key.name != "name"}
    keys = as_own | dict.fromkeys(COLUMNS) | {"prompt_template": None, "max_length": limit}
    config = JsonlConfig(train_file=str(file), **keys | _columns(own, given, raw, where))
    try:
        rows, notes = encode_rows(config, raw, tokenizer, where, ending_of(run.prompts), _headings(run))
    except InputError as error:
        text = str(error).replace(" (or data.prompt_template)", "")
        for key in COLUMNS:
            text = text.replace(f"data.{key}", f"--{key.replace('_', '-')}")
        raise InputError(text) from error
    asked = run.shape
    if asked.kind is Kind.PAIR and asked.context and detect(config, columns_of(raw), where).context is None:
        notes.append(
            f"The prompts of the run had a context (its column {asked.context}), and no column here is read "
            "as one: --context-column NAME."
        )
    if limit < own.max_length:
        takes = f"the {limit} tokens that the models take"
        notes = [note.replace(f"data.max_length={limit}", takes) for note in notes]
    return rows, notes


def _headings(run: FinishedRun) -> bool | None:
    """Whether the run's prompts had headings; None where it is not for them to say."""
    known = run.record.results is not None or run.recorded_shape is not None
    pairs = run.shape.kind is Kind.PAIR and run.shape.template is None
    return run.shape.headings if known and pairs else None


def _columns(own: ColumnsConfig, given: Mapping[str, str], raw: RawRows, where: str) -> dict[str, str | None]:
    """Which columns of a file are what, and the template of its prompts: that of the run, in any case.

    Raises InputError where the file lacks what the template names.
    """
    there = set(columns_of(raw))
    theirs = {key: getattr(own, key) for key in COLUMNS if getattr(own, key) is not None}
    keys: dict[str, str | None] = dict(given)
    if not given and set(theirs.values()) <= there:
        keys = theirs
    template, parts = own.prompt_template, template_fields(own.prompt_template)
    if template is None or "text_column" in given or "messages_column" in given:
        return keys
    if "prompt_column" in given and len(parts) == 1:
        mine = renamed(template, parts[0], given["prompt_column"])
        return keys | {"prompt_column": None, "prompt_template": mine}
    if missing := [name for name in parts if name not in there]:
        way_out = "--prompt-column NAME says which it is" if len(parts) == 1 else "call its columns so"
        raise InputError(
            f"{where} has no column {', '.join(missing)}, of which the prompts of this run are written "
            f"(data.prompt_template={template!r}): {way_out}. {listed(there)}"
        )
    if "prompt_column" in given:
        raise InputError(
            f"--prompt-column {given['prompt_column']}: the prompts of this run are written of "
            f"{', '.join(parts)} (data.prompt_template={template!r}), and {where} has them. Leave it out."
        )
    return keys | {"prompt_template": template}


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
