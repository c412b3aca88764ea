"""What a run leaves: results, costs, samples, the student. Written whole or not at all."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil.adapters.existing import SIDECAR
from distil.cards.brief import run_card
from distil.config.schema import EvalConfig
from distil.data.malformed import BadRow
from distil.data.splits import Splits
from distil.engine import checkpoints
from distil.engine.anatomy import is_adapted
from distil.engine.evaluation import HOW_IT_ANSWERS, Evaluation, entropy_floor, plan
from distil.identity import rows_digest
from distil.metrics.base import describe
from distil.run_files import BAD_ROWS, COST, RESULTS, SAMPLES, STUDENT
from distil.system.files import all_or_nothing, write_json, write_text

logger = logging.getLogger(__name__)

CARD = "README.md"


def write_results(
    folder: Path,
    config: EvalConfig,
    splits: Splits,
    evaluations: Mapping[str, Evaluation | None],
    notes: Sequence[str],
    ruined: bool = False,
) -> None:
    """``results.json``: one number a metric for teacher, student_before and student_after.

    ``ruined``: whether training left a student that says nothing: no comparison ranks it.
    """
    after = evaluations["student_after"]
    assert after is not None
    metrics, _ = plan(config, splits.test, has_teacher=evaluations["teacher"] is not None)
    said = [note for found in evaluations.values() if found is not None for note in found.notes]
    write_json(
        folder / RESULTS,
        {
            "metrics": describe(metrics),
            **{who: found and found.scores for who, found in evaluations.items()},
            "floor": entropy_floor(splits.test),
            "evaluation": {
                "split": "test",
                "rows": len(splits.test),
                "rows_digest": rows_digest(splits.test),
                "scored_tokens": after.scored_tokens,
                "generation_rows": len(after.generations),
                **{key: getattr(config, key) for key in HOW_IT_ANSWERS},
            },
            "data": {
                "train_rows": len(splits.train),
                "validation_rows": len(splits.validation),
                "test_rows": len(splits.test),
                "dropped": splits.dropped,
                "shape": splits.shape.record(),
            },
            "notes": list(dict.fromkeys([*notes, *said])),
            **({"ruined": True} if ruined else {}),
        },
    )


def write_bad_rows(folder: Path, rows: Sequence[BadRow]) -> None:
    """``bad_rows.jsonl``: where the rows are that ``data.on_bad_row=skip`` left out, and why. Warns once."""
    if not rows:
        (folder / BAD_ROWS).unlink(missing_ok=True)
        return
    write_text(folder / BAD_ROWS, "".join(json.dumps(row.record()) + "\n" for row in rows))
    count = "1 malformed row is" if len(rows) == 1 else f"{len(rows):,} malformed rows are"
    logger.warning("%s left out (%s lists them), the first: %s", count, folder / BAD_ROWS, rows[0])


def write_cost(folder: Path, facts: Mapping[str, Any], parameters: Mapping[str, int | None]) -> None:
    """``cost.json``: what the run took, apart from results, so that those compare byte for byte."""
    weights = sum(file.stat().st_size for file in (folder / STUDENT).glob("*.safetensors"))
    write_json(folder / COST, {**facts, "student_bytes": weights, "parameters": dict(parameters)})


def parameter_counts(teacher: PreTrainedModel | None, student: PreTrainedModel) -> dict[str, int | None]:
    """Parameters of both models, and how many of the student's are trained.

    Those of an adapter count as the student's; weights in 4 bits count as if they lay one by one. A teacher
    that is the student's own base has none of its own: 0.
    """
    untyped: Any = student
    if is_adapted(student):
        trained, whole = untyped.get_nb_trainable_parameters()
    else:
        trained, whole = student.num_parameters(only_trainable=True), student.num_parameters()
    return {
        "teacher": None if teacher is None else teacher.num_parameters(),
        "student": whole,
        "trainable": trained,
    }


def write_samples(
    folder: Path, evaluations: Mapping[str, Evaluation | None], count: int
) -> list[dict[str, Any]]:
    """``samples.jsonl``: what each model wrote to the first ``count`` prompts. Returns the rows."""
    after = evaluations["student_after"]
    assert after is not None
    rows = []
    for i, generation in enumerate(after.generations[:count]):
        row: dict[str, Any] = {"prompt": generation.prompt, "reference": generation.reference}
        for who, found in evaluations.items():
            row[who] = None if found is None else found.generations[i].text
        rows.append(row)
    write_text(folder / SAMPLES, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows


def keep_student(
    folder: Path,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    title: str,
    command: str,
    base: Mapping[str, Any],
) -> None:
    """Save the product as a plain folder: model or adapter, tokenizer, model card.

    ``base``: beside an adapter, how the model under it is made (``distil.json``).
    """
    target = folder / STUDENT
    with all_or_nothing(target) as partial:
        if is_adapted(student):
            untyped: Any = student
            # False: no vocabulary is resized here, and PEFT would ask a hub whether one was.
            untyped.save_pretrained(partial, save_embedding_layers=False)
            write_json(partial / SIDECAR, base)
        else:
            student.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_text(partial / CARD, run_card(title, command, base if is_adapted(student) else None))
        shutil.rmtree(target, ignore_errors=True)  # of a session that was stopped behind it


def seal(folder: Path) -> None:
    """Write down what the run came to, file by file, so that damage is told later. Cards may be edited."""
    student = folder / STUDENT
    product = [file for file in sorted(student.rglob("*")) if file.is_file()]
    cards = [file for file in product if file == student / CARD]
    scores = [folder / name for name in (RESULTS, SAMPLES, COST)]
    checkpoints.seal(folder, [*scores, *(file for file in product if file not in cards)], cards)
