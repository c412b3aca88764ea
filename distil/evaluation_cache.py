"""Scores of models that no run trains, evaluated once and read by every run that shares model, rows and code.

The teacher and the untouched student are the same in all jobs of a sweep: what they came to is kept beside
the runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distil.config.schema import ExperimentConfig
from distil.engine.evaluation import Evaluation
from distil.identity import fingerprint_path
from distil.metrics.base import Generation
from distil.parts import Parts
from distil.system import environment
from distil.system.files import read_json, write_json
from distil.teacher_cache.keys import key_of, student_print, teacher_print, tokenizer_print
from distil.teacher_cache.once import once

logger = logging.getLogger(__name__)

FOLDER = ".evaluations"
"""Below ``output_dir``."""
FILE = "evaluation.json"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
"""Those whose versions may move a score; another device's rounding moves it too."""
NO_SCORE = ("samples", "during_training_rows", "batch_size", "name")
"""Keys of ``eval`` that change no score."""


class EvaluationCache:
    """What is known about the untrained models of a run.

    Args:
        run: the name of its folder.
        say: takes a line of whom is waited for: two runs that want one score at once evaluate once.
    """

    def __init__(self, config: ExperimentConfig, parts: Parts, run: str, say: Callable[[str], None]) -> None:
        self.config = config
        self.parts = parts
        self.run = run
        self.say = say
        self.taken_over: dict[str, str] = {}
        """Of ``teacher`` and ``student_before``: the run that found its scores, where it was another."""
        evaluation = {key: value for key, value in asdict(config.eval).items() if key not in NO_SCORE}
        versions = environment.versions()
        self.shared = {
            "tokenizer": tokenizer_print(parts.tokenizer),
            "rows": key_of({"rows": parts.splits.test.to_list()}),
            "eval": evaluation,
            "seed": config.seed if config.eval.do_sample else None,
            "eos_ids": list(parts.eos_ids),
            "shared_vocabulary": parts.shared_vocabulary,
            "code": environment.code_version(),
            "versions": {name: versions.get(name) for name in LIBRARIES},
            "device": next(parts.student.parameters()).device.type,
            "plugins": [fingerprint_path(path) for path in config.run.plugins],
            "teacher": self._teacher() if config.eval.teacher and parts.teacher_facts is not None else None,
        }

    def teacher(self, evaluate: Callable[[], Evaluation]) -> Evaluation:
        """That of the teacher; ``evaluate`` is called where nobody has evaluated it."""
        return self._known("teacher", self._teacher(), evaluate)

    def student(self, evaluate: Callable[[], Evaluation]) -> Evaluation:
        """That of the student before it is trained."""
        return self._known("student_before", student_print(self.config, self.parts.base), evaluate)

    def _teacher(self) -> dict[str, Any]:
        return teacher_print(self.config, self.parts.base, None)

    def _known(self, who: str, of: Mapping[str, Any], evaluate: Callable[[], Evaluation]) -> Evaluation:
        folder = Path(self.config.output_dir) / FOLDER / key_of({**self.shared, "evaluated": of})

        def make() -> tuple[Evaluation, str]:
            found = evaluate()
            write_json(folder / FILE, {**asdict(found), "run": self.run})
            return found, self.run

        found, run = once(folder, lambda: _read(folder / FILE), make, self.say, "output_dir")
        if run != self.run:
            self.taken_over[who] = run
            logger.info("Scores of %s are those that %s found: %s", who, run, folder / FILE)
        return found


def _read(file: Path) -> tuple[Evaluation, str] | None:
    """What is kept there, and the run that found it."""
    try:
        stored = read_json(file)
        return from_json(stored), str(stored.get("run", "an earlier run"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def from_json(stored: Mapping[str, Any]) -> Evaluation:
    """The evaluation of which ``stored`` is ``asdict``."""
    generations = [Generation(**generation) for generation in stored["generations"]]
    return Evaluation(stored["scores"], generations, stored["scored_tokens"], stored["notes"])
