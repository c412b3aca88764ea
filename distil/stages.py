"""The stages of one run, in order: load, judge what there is, train, judge again, keep.

Each stage leaves its result in the run directory, so that a run that stops anywhere goes on from there.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel, set_seed

from distil import environment, ranks, results
from distil.advice import setback
from distil.anatomy import virtual_tokens
from distil.borrowed import borrowed
from distil.callbacks import AtCheckpoint
from distil.clock import Clock
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.evaluation import Judgement, judge
from distil.files import read_json, write_json
from distil.judged import Judged, restored
from distil.methods.base import Method
from distil.models import LoadedStudent
from distil.models.sources import student_source
from distil.packing import check_packable
from distil.parts import Parts, load_parts
from distil.progress import Progress
from distil.quiet import quiet_datasets, quiet_transformers
from distil.redact import redact
from distil.scalars import MetricsLog
from distil.self_teacher import adapter_off
from distil.teacher import TeacherAccess, open_teacher, teacher_stays
from distil.teacher_cache.formats.base import format_of
from distil.teacher_signal import TeacherSource
from distil.tracking import Tracker
from distil.trainer import DistillationTrainer
from distil.training import advise, build_trainer, place, train, training_arguments

logger = logging.getLogger(__name__)

BEFORE = "before.json"
"""What teacher and untouched student came to."""
SPENT = "spent.json"
"""What the sessions of this run have taken so far."""


@quiet_transformers()
@quiet_datasets()
def run_stages(
    config: ExperimentConfig,
    method: Method[MethodConfig],
    folder: Path,
    tracker: Tracker,
    console: Console,
    command: str,
) -> None:
    """Run every stage; ``folder`` then holds results, costs, samples and the student.

    Of several processes, all load and train, and the first judges and writes.

    Raises RunInterrupted after Ctrl-C (with a checkpoint), RunFailed where training cannot go on.
    """
    environment.reset_peak_memory()
    clock = Clock(folder / SPENT if ranks.is_main() else None, resumes=config.run.resume)
    progress = Progress(console)
    with clock("load"), progress.spinner("loading data and models"):
        set_seed(config.seed)
        arguments = training_arguments(config, folder)
        wants_teacher = method.needs_teacher or config.eval.teacher
        parts = load_parts(config, wants_teacher=wants_teacher, teacher_stays=teacher_stays(config, method))
        place(parts, arguments, Path(config.output_dir))
        if ranks.is_main():
            results.write_bad_rows(folder, parts.splits.bad_rows)
        if config.run.packing:
            _check_packable(parts, method.needs_teacher)
    with clock("teacher_cache" if format_of(config.teacher_cache).stores else "load"):
        access = open_teacher(config, method, parts, arguments, progress)
    with clock("evaluate"):
        ranks.from_main(lambda: _judge_before(config, parts, access, folder, progress))
    access.model.release()
    counts = results.parameter_counts(parts.teacher_facts, parts.student)  # of models not cut up yet
    with borrowed(parts.student):
        trainer, log = build_trainer(config, method, parts, access, arguments, folder, tracker)
        trainer.add_callback(AtCheckpoint(clock.keep))
        notes = parts.notes + advise(config, trainer)
        train(trainer, folder, config, console)
        notes += trainer.broken_steps.notes() + list(trainer.watch.said.values())
    student, teacher_source = trainer.shells.filled(parts.student), trainer.shells.filled(access.test)
    if not ranks.is_main():
        return
    with clock("evaluate"):
        after = _judge(config, student, teacher_source, parts, progress, "the distilled student")
    teacher, before = _judged_before(folder)
    if line := setback(before.scores, after.scores, trainer.terms(), config.trainer.learning_rate):
        logger.warning(line)
        notes.append(line)
    judgements = {"teacher": teacher, "student_before": before, "student_after": after}
    base = base_recipe(config, parts.base)
    results.keep_student(folder, student, parts.tokenizer, _title(config), command, base)
    results.write_results(folder, config.eval, parts.splits, judgements, notes)
    samples = results.write_samples(folder, judgements, config.eval.samples)
    _write_cost(folder, trainer, log, clock, access, counts)
    results.seal(folder)
    tracker.samples(samples)
    tracker.summary(read_json(folder / "results.json"), read_json(folder / "cost.json"))


def _write_cost(
    folder: Path,
    trainer: DistillationTrainer,
    log: MetricsLog,
    clock: Clock,
    access: TeacherAccess,
    counts: dict[str, int | None],
) -> None:
    # All of them count earlier sessions too: a resumed run is not cheaper than a whole one.
    clock.keep()
    seconds = clock.seconds | {"train": log.spent.seconds, "validation": log.validation_seconds}
    steps = trainer.state.global_step
    facts = {
        "steps": steps,
        **trainer.tally.totals(),
        "seconds": {
            stage: round(spent, 2) for stage, spent in (seconds | {"total": sum(seconds.values())}).items()
        },
        "seconds_per_step": log.spent.seconds / max(steps, 1),
        "cpu_seconds_per_step": log.spent.cpu_seconds / max(steps, 1),
        "peak_memory_bytes": clock.peak_memory_bytes,
    }
    if access.facts is not None:
        facts["teacher_cache"] = access.facts
    results.write_cost(folder, facts, counts)


def _check_packable(parts: Parts, needs_teacher: bool) -> None:
    check_packable(parts.student, "the student")
    if needs_teacher and parts.teacher is not None:
        check_packable(parts.teacher, "the teacher")


def base_recipe(config: ExperimentConfig, base: LoadedStudent) -> dict[str, Any]:
    """How the model under an adapter is made, for whoever loads the adapter: what the config says, the layers
    that were kept, and what tells its weights from others."""
    model = asdict(config.model.student)
    source = student_source(config.model)  # the teacher's, where the student is made from it
    model |= {"path": base.name, "revision": source.revision, "gguf_file": source.gguf_file}
    del model["adapter"], model["trust_remote_code"]  # no file says for its reader what may run
    return {
        "peft": config.peft.name,
        "model": model,
        "seed": config.seed,
        "kept_layers": base.kept_layers,
        "base_print": base.base_print,
    }


def _title(config: ExperimentConfig) -> str:
    title: str = redact(
        f"{config.method.name} student of {config.model.teacher.path or config.model.student.path}"
    )
    return title


# ---- judgement


def _judge(
    config: ExperimentConfig,
    model: PreTrainedModel,
    teacher: TeacherSource | None,
    parts: Parts,
    progress: Progress,
    label: str,
) -> Judgement:
    with progress.bar(f"judging {label}") as report:
        return judge(
            model,
            teacher if config.eval.teacher else None,
            parts.splits.test,
            parts.tokenizer,
            config.eval,
            config.seed,
            eos_ids=parts.eos_ids,
            shared_vocabulary=parts.shared_vocabulary,
            progress=report,
        )


def _judge_before(
    config: ExperimentConfig, parts: Parts, access: TeacherAccess, folder: Path, progress: Progress
) -> None:
    """Teacher and untouched student; kept on disk, so that nobody judges them again."""
    kept = folder / BEFORE
    if kept.exists():
        try:
            _judged_before(folder)
            return
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            logger.warning("%s is damaged (%s): judged again.", kept.name, type(error).__name__)
    judged = Judged(config, parts, progress.say)

    def judge_teacher() -> Judgement:
        itself = access.model()
        return _judge(config, itself, itself, parts, progress, "the teacher")

    def judge_student() -> Judgement:
        untouched = parts.student
        if virtual_tokens(untouched) and config.model.student.adapter is None:
            untouched = adapter_off(
                untouched
            )  # a prompt that nobody has trained yet is noise before every row
        return _judge(config, untouched, access.test, parts, progress, "the untouched student")

    has_teacher = parts.teacher_facts is not None and config.eval.teacher
    teacher = judged.teacher(judge_teacher) if has_teacher else None
    before = judged.student(judge_student)
    write_json(kept, {"teacher": teacher and asdict(teacher), "student_before": asdict(before)})


def _judged_before(folder: Path) -> tuple[Judgement | None, Judgement]:
    """What ``_judge_before`` kept."""
    stored = read_json(folder / BEFORE)
    teacher = None if stored["teacher"] is None else restored(stored["teacher"])
    return teacher, restored(stored["student_before"])
