"""The stages of one run, in order: load, evaluate what there is, train, evaluate again, keep.

Each stage leaves its result in the run directory, so that a run that stops anywhere goes on from there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainingArguments, set_seed

from distil import results
from distil.advice import ruined, setback, weak_teacher
from distil.config.schema import ExperimentConfig, MethodConfig
from distil.engine.anatomy import virtual_tokens
from distil.engine.borrowed import borrowed
from distil.engine.callbacks import AtCheckpoint
from distil.engine.clock import Clock
from distil.engine.evaluation import Evaluation, evaluate_model
from distil.engine.packing import check_packable
from distil.engine.scalars import MetricsLog
from distil.engine.self_teacher import adapter_off
from distil.engine.teacher_signal import TeacherSource
from distil.engine.trainer import DistillationTrainer
from distil.evaluation_cache import EvaluationCache, from_json
from distil.losses import Term
from distil.methods.base import Method
from distil.models import LoadedStudent
from distil.models.sources import student_source
from distil.parts import Parts, load_parts
from distil.processes import ranks
from distil.run_files import BEFORE, COST, RESULTS, SPENT
from distil.system import environment
from distil.system.files import read_json, write_json
from distil.system.machine import more_threads_than_cores
from distil.system.progress import Progress
from distil.system.quiet import quiet_datasets, quiet_transformers
from distil.system.redact import redact
from distil.teacher import TeacherAccess, open_teacher, teacher_stays
from distil.teacher_cache.formats.base import format_of
from distil.tracking import Tracker
from distil.training import advise, build_trainer, place, train, training_arguments

logger = logging.getLogger(__name__)


@quiet_transformers()
@quiet_datasets()
def run_stages(
    config: ExperimentConfig,
    method: Method[MethodConfig],
    folder: Path,
    tracker: Tracker,
    progress: Progress,
    command: str,
) -> None:
    """Run every stage; ``folder`` then holds results, costs, samples and the student.

    Of several processes, all load and train, and the first evaluates and writes.

    Raises RunInterrupted after Ctrl-C (with a checkpoint), RunFailed where training cannot go on.
    """
    environment.reset_peak_memory()
    clock = Clock(folder / SPENT if ranks.is_main() else None, resumes=config.run.resume)
    with clock("load"), progress.spinner("loading data and models"):
        set_seed(config.seed)
        arguments = training_arguments(config, folder)
        parts = _loaded(config, method, folder, arguments)
    with clock("teacher_cache" if format_of(config.teacher_cache).stores else "load"):
        teacher = open_teacher(config, method, parts, arguments, progress)
    run = _Run(config, folder, parts, teacher, progress, clock)
    with clock("evaluate"):
        ranks.from_main(run.evaluate_untrained)
    teacher.model.release()
    counts = results.parameter_counts(parts.teacher_facts, parts.student)  # of models not cut up yet
    with borrowed(parts.student):
        trainer, log = build_trainer(config, method, parts, teacher, arguments, folder, tracker)
        trainer.add_callback(AtCheckpoint(clock.keep))
        notes = parts.notes + advise(config, trainer)
        if ranks.is_main():
            notes += run.doubts(trainer.terms())
        train(trainer, folder, config, progress)
        notes += trainer.broken_steps.notes() + list(trainer.watch.said.values())
    student, source = trainer.shells.filled(parts.student), trainer.shells.filled(teacher.test)
    if not ranks.is_main():
        return
    with clock("evaluate"):
        after = run.evaluate(student, source, "the distilled student")
    results.keep_student(
        folder, student, parts.tokenizer, _title(config), command, base_recipe(config, parts.base)
    )
    samples = run.keep_scores(after, trainer, notes)
    run.keep_cost(trainer, log, counts)
    results.seal(folder)
    tracker.samples(samples)
    tracker.summary(read_json(folder / RESULTS), read_json(folder / COST))


def _loaded(
    config: ExperimentConfig, method: Method[MethodConfig], folder: Path, arguments: TrainingArguments
) -> Parts:
    """Models, on their device, and data; what cannot be trained on is refused."""
    wants_teacher = method.needs_teacher or config.eval.teacher
    parts = load_parts(config, wants_teacher=wants_teacher, teacher_stays=teacher_stays(config, method))
    place(parts, arguments, Path(config.output_dir))
    if ranks.is_main():
        if parts.student.device.type == "cpu":
            width = getattr(parts.student.config.get_text_config(), "hidden_size", math.inf)
            asked = config.run.threads
            line = environment.crowded(width) if asked is None else more_threads_than_cores(asked)
            if line is not None:
                logger.warning(line, extra={"said_once": True})
        results.write_bad_rows(folder, parts.splits.bad_rows)
    if config.run.packing:
        check_packable(parts.student, "the student")
        if method.needs_teacher and parts.teacher is not None:
            check_packable(parts.teacher, "the teacher")
    return parts


@dataclass(frozen=True)
class _Run:
    """A run whose parts are loaded: what its models come to, and what is kept of that."""

    config: ExperimentConfig
    folder: Path
    parts: Parts
    teacher: TeacherAccess
    progress: Progress
    clock: Clock

    def evaluate(self, model: PreTrainedModel, teacher: TeacherSource | None, label: str) -> Evaluation:
        """``model`` on the test rows, beside ``teacher``."""
        with self.progress.bar(f"evaluating {label}") as report:
            return evaluate_model(
                model,
                teacher if self.config.eval.teacher else None,
                self.parts.splits.test,
                self.parts.tokenizer,
                self.config.eval,
                self.config.seed,
                eos_ids=self.parts.eos_ids,
                shared_vocabulary=self.parts.shared_vocabulary,
                progress=report,
            )

    def evaluate_untrained(self) -> None:
        """Teacher and untouched student; kept on disk, so that nobody evaluates them again."""
        kept = self.folder / BEFORE
        if kept.exists():
            try:
                self.untrained()
                return
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                logger.warning("%s is damaged (%s): evaluated again.", kept.name, type(error).__name__)
        known = EvaluationCache(self.config, self.parts, self.folder.name, self.progress.say)
        has_teacher = self.parts.teacher_facts is not None and self.config.eval.teacher
        teacher = known.teacher(self._evaluate_teacher) if has_teacher else None
        before = known.student(self._evaluate_student)
        scores = {"teacher": teacher and asdict(teacher), "student_before": asdict(before)}
        write_json(kept, {**scores, "taken_over": known.taken_over})

    def _evaluate_teacher(self) -> Evaluation:
        itself = self.teacher.model()
        return self.evaluate(itself, itself, "the teacher")

    def _evaluate_student(self) -> Evaluation:
        untouched = self.parts.student
        if virtual_tokens(untouched) and self.config.model.student.adapter is None:
            untouched = adapter_off(untouched)  # a prompt that nobody has trained is noise before every row
        return self.evaluate(untouched, self.teacher.test, "the untouched student")

    def untrained(self) -> tuple[Evaluation | None, Evaluation, dict[str, str]]:
        """What ``evaluate_untrained`` kept: teacher, student, and by which other run either was evaluated."""
        stored = read_json(self.folder / BEFORE)
        teacher = None if stored["teacher"] is None else from_json(stored["teacher"])
        return teacher, from_json(stored["student_before"]), dict(stored.get("taken_over", {}))

    def doubts(self, terms: Sequence[Term]) -> list[str]:
        """Say what is odd about the scores before training, while nothing is trained yet."""
        teacher, before, _ = self.untrained()
        said = teacher and weak_teacher(teacher.scores, before.scores, terms)
        if not said:
            return []
        logger.warning(said, extra={"said_once": True})
        return [said]

    def keep_scores(
        self, after: Evaluation, trainer: DistillationTrainer, notes: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Write results and samples of all three models; returns the samples."""
        teacher, before, _ = self.untrained()
        rate, history = self.config.trainer.learning_rate, trainer.state.log_history
        vocabulary = int(self.parts.student.config.get_text_config().vocab_size)
        ruin = ruined(before.scores, after.scores, vocabulary, rate)
        worse = ruin or setback(before.scores, after.scores, trainer.terms(), rate, history, notes)
        if worse is not None:
            logger.warning(worse, extra={"said_at_end": True})
            notes = [*notes, worse]
        evaluations = {"teacher": teacher, "student_before": before, "student_after": after}
        splits = self.parts.splits
        results.write_results(self.folder, self.config.eval, splits, evaluations, notes, bool(ruin))
        return results.write_samples(self.folder, evaluations, self.config.eval.samples)

    def keep_cost(self, trainer: DistillationTrainer, log: MetricsLog, counts: dict[str, int | None]) -> None:
        """Write what all sessions took: a resumed run is not cheaper than a whole one."""
        self.clock.keep()
        stages = self.clock.seconds | {"train": log.spent.seconds, "validation": log.validation_seconds}
        seconds = stages | {"total": sum(stages.values())}
        steps = trainer.state.global_step
        facts = {
            "steps": steps,
            **trainer.tally.totals(),
            "seconds": {stage: round(spent, 2) for stage, spent in seconds.items()},
            "seconds_per_step": log.spent.seconds / max(steps, 1),
            "cpu_seconds_per_step": log.spent.cpu_seconds / max(steps, 1),
            "peak_memory_bytes": self.clock.peak_memory_bytes,
        }
        if self.teacher.facts is not None:
            facts["teacher_cache"] = self.teacher.facts
        if taken_over := self.untrained()[2]:
            facts["scores_taken_over"] = taken_over
        results.write_cost(self.folder, facts, counts)


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
