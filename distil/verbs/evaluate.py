"""``distil evaluate RUN``: a finished run's student and teacher again, on its test rows or others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.data.base import COLUMNS
from distil.system.offline import network
from distil.types import InputError
from distil.verbs.arguments import Parser, begin, warn, whole

if TYPE_CHECKING:
    import argparse

    from datasets import Dataset

    from distil.config.schema import EvalConfig
    from distil.engine.evaluation import Evaluation
    from distil.products.finished_run import FinishedRun
    from distil.products.reevaluation import Pair
    from distil.products.rows_file import RowsFile
    from distil.system.progress import Progress


def main(arguments: Sequence[str]) -> int:
    """Evaluate, print the table, and write JSON where asked to."""
    given = _parser().read(arguments)
    if given is None:
        return 0
    if given.json is not None and not os.access(given.json.absolute().parent, os.W_OK):
        raise InputError(f"--json {given.json}: {given.json.absolute().parent} cannot be written to.")
    if given.json is not None and given.json.is_dir():
        raise InputError(f"--json {given.json} is a folder: name a file in it.")
    named = {key: getattr(given, key) for key in COLUMNS if getattr(given, key) is not None}
    if given.data is None and named:
        raise InputError(f"--{next(iter(named)).replace('_', '-')} names a column of --data FILE: give both.")
    from distil.products.library import SavedStudent, open_product
    from distil.products.rows_file import RowsFile

    run = open_product(given.run, trust=given.trust_remote_code)
    file = None if given.data is None else RowsFile(run, given.data, named)
    if file is not None:
        file.check()
    elif isinstance(run, SavedStudent):
        raise InputError(f"{given.run} was saved by the library, which kept no test rows: give --data FILE.")
    warn(run.folder, run.record.damaged)
    begin("Evaluating", run.folder)
    with network(run.config.run.allow_network):
        result = _evaluated(run, file, given)
    _print(result)
    if given.json is not None:
        from distil.system.files import write_json

        write_json(given.json, result)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "evaluate",
        "Evaluate the student of a finished run and its teacher, with the metrics and the settings of\n"
        "the run. On the run's own test rows this gives the numbers of its results.json again. What\n"
        "save_student of the library wrote is evaluated without a teacher, on --data.",
    )
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="the folder of a finished run, or of save_student"
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        type=Path,
        help="rows of your own: JSON Lines, JSON, CSV or Parquet; all of them are evaluated, prompts\n"
        "written as in the run's training (chat template, headings, closing line break)",
    )
    for key in COLUMNS:
        parser.add_argument(f"--{key.replace('_', '-')}", metavar="NAME", help="a column of FILE by name")
    parser.add_argument("--rows", metavar="N", type=whole(1), help="the first N rows only")
    parser.add_argument(
        "--generation-rows", metavar="N", type=whole(0), help="how many of them are answered by generation"
    )
    parser.add_argument("--no-teacher", action="store_true", help="the student alone: no teacher is loaded")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result there too")
    parser.may_trust()
    return parser


def _evaluated(run: FinishedRun, file: RowsFile | None, given: argparse.Namespace) -> dict[str, Any]:
    """What ``--json`` writes."""
    from rich.console import Console

    from distil.data.row_notes import copies_note
    from distil.engine.evaluation import HOW_IT_ANSWERS, entropy_floor, plan
    from distil.metrics.base import describe
    from distil.products import reevaluation
    from distil.system.progress import Progress

    progress = Progress(Console(stderr=True))
    with progress.spinner("loading models and data"):
        pair = reevaluation.load_pair(run, teacher=reevaluation.loads_teacher(run) and not given.no_teacher)
        if file is None:
            rows, notes = reevaluation.own_rows(run, pair.tokenizer)
        else:
            rows, notes = file.encoded(pair.tokenizer, reevaluation.longest_row(pair.student, pair.teacher))
        if given.rows is not None:
            rows = rows.select(range(min(given.rows, len(rows))))
        if file is not None:
            notes += [copies] if (copies := copies_note(rows, "rows")) else []
            notes += reevaluation.trained_on(run, rows, pair.tokenizer)
    config, more = reevaluation.fitting(run.config.eval, rows)
    if given.generation_rows is not None:
        config.generation_rows = given.generation_rows
    with_teacher = reevaluation.evaluates_teacher(run) and pair.teacher is not None
    evaluations = {
        who: _one(run, who, pair, rows, config, with_teacher, progress) for who in ("teacher", "student")
    }
    student = evaluations["student"]
    assert student is not None
    said = [note for found in evaluations.values() if found is not None for note in found.notes]
    return {
        "run": str(run.folder),
        "data": "test" if given.data is None else str(given.data),
        "metrics": describe(plan(config, rows, has_teacher=with_teacher)[0]),
        **{who: found and found.scores for who, found in evaluations.items()},
        "floor": entropy_floor(rows),
        "evaluation": {
            "rows": len(rows),
            "scored_tokens": student.scored_tokens,
            "generation_rows": len(student.generations),
            **{key: getattr(config, key) for key in HOW_IT_ANSWERS},
        },
        "notes": list(dict.fromkeys([*notes, *more, *said])),
    }


def _one(
    run: FinishedRun,
    who: str,
    pair: Pair,
    rows: Dataset,
    config: EvalConfig,
    with_teacher: bool,
    progress: Progress,
) -> Evaluation | None:
    """One of the two models, as the run evaluates it."""
    from distil.engine.evaluation import evaluate_model

    teacher = pair.teacher if with_teacher else None
    model = pair.student if who == "student" else teacher
    if model is None:
        return None
    with progress.bar(f"evaluating the {who}") as report:
        return evaluate_model(
            model,
            teacher,
            rows,
            pair.tokenizer,
            config,
            run.config.seed,
            eos_ids=pair.eos_ids,
            shared_vocabulary=pair.shared_vocabulary,
            progress=report,
        )


def _print(result: Mapping[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distil.report import palette, words
    from distil.report.run_directory import Metric
    from distil.report.terminal import fitted

    console = Console()
    show = fitted(console)
    styles = {
        "teacher": palette.TEACHER.terminal,
        "student": f"bold {palette.AFTER.terminal}",
        "floor": "dim",
    }
    columns = [who for who in styles if result[who]]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold")
    for who in columns:
        table.add_column(who, justify="right", style=styles[who], no_wrap=True)
    for name, raw in result["metrics"].items():
        metric = Metric(name, raw["unit"], raw["higher_is_better"], raw["format"])
        label = Text(show(f"{name} {words.arrow(metric)}".rstrip()))
        label.append(show(f" {metric.unit}".rstrip()), style="dim")
        values = ((result[who].get(name), who) for who in columns)
        table.add_row(
            label,
            *(
                "" if v is None and who == "floor" else Text(show(words.score(v, metric)))
                for v, who in values
            ),
        )
    console.print(table)
    console.print()
    told = [_sentence(result), *(f"Note: {note}" for note in result["notes"])]
    for line in told:
        console.print(Text(show(line), style="dim"))


def _sentence(result: Mapping[str, Any]) -> str:
    from distil.report.words import few_rows

    e = result["evaluation"]
    rows = "row" if e["rows"] == 1 else "rows"
    which = f"test {rows} of the run" if result["data"] == "test" else f"{rows} of {result['data']}"
    how = "greedy"
    if e["do_sample"]:
        how = f"sampled at temperature {e['sampling_temperature']}, top_k {e['top_k']}, top_p {e['top_p']}"
    answers = f"; {e['generation_rows']:,} answered, {how}, at most {e['max_new_tokens']} new tokens"
    return (
        f"↑ higher is better, ↓ lower is better. {e['rows']:,} {which} ({e['scored_tokens']:,} scored tokens)"
        f"{answers if e['generation_rows'] else ''}. {few_rows(e)}"
    ).rstrip()
