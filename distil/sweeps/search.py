"""Search before a comparison: the same number of trials for each choice, evaluated on the validation split.

An interval of the command line is searched, all else that is swept is a choice with a study of its own:
``method=sft,kd`` has two. Optuna proposes; a study lies in a file of the sweep's folder and survives a kill.
A proposal depends on the trials told so far and on ``seed`` alone, so a search that was killed comes to the
same trials as one that was not.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.metrics.base import WHILE_TRAINING
from distil.run_files import METRICS
from distil.types import InputError

JOURNAL = "search.journal"
DIGITS = 3
"""Significant digits of a proposal, or of the width of its interval where that is narrow."""
EDGE = 0.05
"""Share of an interval, at each end: a best value in there hints at better ones outside."""
FEW = 4
"""So many trials, or fewer, all stand evenly: less says nothing to a sampler."""
LOCK_SECONDS = 5
"""After this, a lock on the journal is that of a process that was killed."""


@dataclass(frozen=True)
class Interval:
    """What one key is searched in."""

    low: float
    high: float
    log: bool
    whole: bool

    def at(self, share: float) -> float:
        """The value at ``share`` (0 to 1) of the way, by ratios where ``log``."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + (self.high - self.low) * share

    def share(self, value: float) -> float:
        """How far between the ends ``value`` lies."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def written(self, value: float) -> str:
        """``value`` as an override has it, in the interval whatever is rounded."""
        if self.whole:
            return str(round(value))
        width = self.high - self.low
        size = min(abs(value) or width, width)
        rounded = round(value, DIGITS - 1 - math.floor(math.log10(size)))
        return repr(float(min(max(rounded, self.low), self.high)))


@dataclass(frozen=True)
class SearchSweeper:
    """``hydra.sweeper`` of a search."""

    trials: int = 8
    """Of each choice."""
    batch: int = 1
    """Trials of one choice that run before the next are proposed."""
    seed: int = 0
    objective: str = "nll_per_token"

    def __post_init__(self) -> None:
        for key in ("trials", "batch"):
            if getattr(self, key) < 1:
                raise InputError(f"hydra.sweeper.{key} must be at least 1, got {getattr(self, key)}.")
        if self.objective not in WHILE_TRAINING:
            raise InputError(
                f"hydra.sweeper.objective={self.objective} is unknown. Known, all on the validation split: "
                f"{', '.join(WHILE_TRAINING)}."
            )


@dataclass
class Trial:
    """One proposal: its values by key, and what came of it (None: not known, or it failed)."""

    values: dict[str, float]
    number: int
    score: float | None = None


class Study:
    """The search of one choice."""

    def __init__(self, file: Path, name: str, space: Mapping[str, Interval], settings: SearchSweeper) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.settings = dict(space), settings
        self._optuna = optuna
        self._given_up: set[int] = set()
        lock = JournalFileOpenLock(str(file), grace_period=LOCK_SECONDS)
        storage = JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
        direction: Any = "maximize" if WHILE_TRAINING[settings.objective] else "minimize"
        self._study = optuna.create_study(
            study_name=name, storage=storage, direction=direction, load_if_exists=True
        )
        self._distributions: dict[str, Any] = {
            key: optuna.distributions.IntDistribution(int(each.low), int(each.high), log=each.log)
            if each.whole
            else optuna.distributions.FloatDistribution(each.low, each.high, log=each.log)
            for key, each in space.items()
        }

    def trials(self) -> list[Trial]:
        """The trials so far, in their order."""
        return [
            Trial({key: trial.params[key] for key in self.space}, trial.number, trial.value)
            for trial in self._study.get_trials(deepcopy=False)
            if set(trial.params) == set(self.space)  # else of a process that was killed while it proposed
        ]

    def propose(self) -> list[Trial]:
        """What is to run next: what was begun or failed before, and new ones up to the end of a batch."""
        known, batch = self.trials(), self.settings.batch
        left = [trial for trial in known if trial.score is None and trial.number not in self._given_up]
        new = -len(known) % batch if left or len(known) % batch else batch
        for number in range(len(known), min(len(known) + new, self.settings.trials)):
            left.append(self._ask(number))
        return left

    def tell(self, trial: Trial, score: float | None) -> None:
        """Note what came of ``trial``. None: it failed, stays open, and the same command tries it again."""
        if score is None or not math.isfinite(score):
            self._given_up.add(trial.number)
        else:
            self._study.tell(trial.number, score)

    def best(self, ruined: Collection[int] = ()) -> Trial | None:
        """The best trial that is done and whose number is not among ``ruined``; None where none is."""
        sign = -1 if WHILE_TRAINING[self.settings.objective] else 1
        done = [trial for trial in self.trials() if trial.score is not None and trial.number not in ruined]
        return min(done, key=lambda trial: sign * (trial.score or 0.0), default=None)

    def _ask(self, number: int) -> Trial:
        """The first half of the trials of one key stand evenly, alike for every choice; then TPE proposes."""
        seed = self.settings.seed + number
        first = max((self.settings.trials + 1) // 2, min(self.settings.trials, FEW))
        sampler: Any = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)
        if len(self.space) == 1 and number < first:
            ((key, interval),) = self.space.items()
            value = interval.at((number + 0.5) / first)
            fixed = {key: round(value) if interval.whole else value}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
                sampler = self._optuna.samplers.PartialFixedSampler(fixed, sampler)
        self._study.sampler = sampler
        asked = self._study.ask(self._distributions)
        return Trial(dict(asked.params), asked.number)


@dataclass
class Choice:
    """One combination of what is swept beside the intervals, and what its search came to."""

    overrides: list[str]
    """All that its jobs share."""
    label: str
    space: Mapping[str, Interval]
    """Its keys that are searched."""
    file: str | None = None
    """Where Hydra reads what was found for it, below a folder of options; None: nowhere of its own."""

    def job(self, trial: Trial) -> list[str]:
        """Overrides of the job that runs ``trial``."""
        return [
            *self.overrides,
            *(f"{key}={self.space[key].written(value)}" for key, value in trial.values.items()),
        ]

    def end(self, share: float) -> Trial:
        """The trial at ``share`` (0 to 1) of the way through each interval."""
        return Trial({key: interval.at(share) for key, interval in self.space.items()}, 0)


@dataclass(frozen=True)
class KeptBest:
    """How Trainer chooses a student (``load_best_model_at_end``): the best evaluation with a checkpoint."""

    by: str
    """What an evaluation is the best by."""
    less: bool
    """Whether the less is the better."""
    save_steps: float = 1
    """Every so many steps there is a checkpoint (below 1: a share of all; 0: none), and one at the end."""

    def of(self, evaluated: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """The one of ``evaluated``, in order, whose student is kept; None where no best one was saved."""
        kept = best = None
        last = evaluated[-1]["step"] if evaluated else 0
        every = math.ceil(self.save_steps * last) if self.save_steps < 1 else self.save_steps
        for record in evaluated:
            value = float(record[f"validation/{self.by}"])
            better = best is None or (value < best[0] if self.less else value > best[0])
            if math.isfinite(value) and better:
                best = value, record
            saved = record["step"] == last or (every and record["step"] % every == 0)
            if saved and best is not None and best[1] is record:
                kept = record
        return kept


def validation_score(run: Path, objective: str, kept_best: KeptBest | None = None) -> float:
    """The value of ``objective`` on the validation split of the student that a run directory holds.

    Args:
        run: of a run that is done.
        objective: what was measured.
        kept_best: how its student was chosen; None: it is that of the last evaluation.

    Raises InputError where nothing was measured, or what was is not whole any more.
    """
    key = f"validation/{objective}"
    try:
        lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
        evaluated = [record for record in map(json.loads, lines) if key in record]
        kept = evaluated[-1] if evaluated else None
        if kept_best is not None:
            kept = kept_best.of(evaluated) or kept
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{run / METRICS} cannot be read ({error}): the run was done, and its score stood there. Remove "
            "the folder, and the same command runs it again."
        ) from error
    if kept is None:
        raise InputError(
            f"{run.name} has no {key}: the search reads it from the evaluation during training. Set "
            "trainer.eval_steps to at most trainer.max_steps, and give a teacher where one is its measure."
        )
    return float(kept[key])


def at_edge(space: Mapping[str, Interval], best: Trial, trials: Sequence[Trial]) -> list[str]:
    """Keys whose value in ``best`` lies near an end of its interval, or beyond those of all other ``trials``
    that have a score: nothing tells whether a value further on is better."""
    found = []
    for key, value in best.values.items():
        others = [trial.values[key] for trial in trials if trial.score is not None] or [value]
        inside = EDGE <= space[key].share(value) <= 1 - EDGE and min(others) < value < max(others)
        found += [] if inside else [key]
    return found
