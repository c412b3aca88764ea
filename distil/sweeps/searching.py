"""A search as a sweep: choices side by side, their jobs through the launcher, what was found at the end."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from distil.config.help import conf_folder
from distil.config.schema import ExperimentConfig
from distil.config.trainer import TrainerConfig
from distil.experiment import tell
from distil.preflight import locate
from distil.report.run_directory import mapping
from distil.run_files import RESULTS, status_of
from distil.sweeps.plan import ending
from distil.sweeps.record import DONE, FAILED, Job, SweepRecord, shared
from distil.sweeps.search import (
    JOURNAL,
    Choice,
    Interval,
    KeptBest,
    SearchSweeper,
    Study,
    Trial,
    at_edge,
    validation_score,
)
from distil.system.files import read_json, write_json, write_text
from distil.types import InputError

FOUND = "found"
"""Folder of the options that were found, for ``--config-dir``."""

Compose = Callable[[list[str]], "ExperimentConfig | InputError"]
Launch = Callable[[list[Job]], None]


@dataclass
class Search:
    """What is searched, and how much."""

    choices: list[Choice]
    settings: SearchSweeper
    compose: Compose
    """The config of a job, from its overrides."""

    def total(self) -> int:
        """Jobs of the whole search."""
        return len(self.choices) * self.settings.trials

    def opening(self, folder: Path) -> str:
        """What is said before the first job."""
        keys = ", ".join(dict.fromkeys(key for choice in self.choices for key in choice.space))
        each = f" for each of {len(self.choices)} choices" if len(self.choices) > 1 else ""
        return (
            f"Search for {keys} in {folder}: {self.settings.trials} trials"
            f"{each}, evaluated on the validation split."
        )


def planned_search(
    combinations: Sequence[tuple[list[str], dict[str, Interval]]], settings: SearchSweeper, compose: Compose
) -> Search:
    """A search for each of ``combinations`` of overrides, over the intervals beside them. Raises InputError
    where a job could not run, and where a choice has nothing to be searched."""
    common = shared([words for words, _ in combinations])
    choices = [
        Choice(words, " ".join(word for word in words if word not in common), space)
        for words, space in combinations
    ]
    for choice in choices:
        if not choice.space:
            raise InputError(
                f"Nothing is searched for {choice.label}, which lacks the keys that have an interval. Leave "
                "it out, or give a key that it has an interval too."
            )
        for share in (0.0, 1.0):
            config = _composed(compose, choice.job(choice.end(share)))
            locate(config)
            if str(config.trainer.eval_strategy) == "no":
                raise InputError("trainer.eval_strategy=no: a search goes by the evaluation during training.")
        group = "tuned" if config.peft.name == "none" else "tuned_adapter"
        part = config.method.name if config.peft.name == "none" else config.peft.name
        choice.file = f"{group}/{config.model.name}_{part}.yaml"
    files = [choice.file for choice in choices]
    for choice in choices:
        # One file for several choices, or one that ours would hide: then overrides alone say it.
        if files.count(choice.file) > 1 or (conf_folder() / str(choice.file)).exists():
            choice.file = None
    return Search(choices, settings, compose)


def run_search(search: Search, record: SweepRecord, launch: Launch) -> dict[str, Study]:
    """Run every trial that is left; returns the studies by the label of their choice."""
    studies = {choice.label: _study(search, choice, record.folder) for choice in search.choices}
    for choice in search.choices:
        for trial in studies[choice.label].trials():
            if trial.score is not None:
                record.report(_job(search, choice, trial, record.folder))
    while True:
        proposed = [(choice, trial) for choice in search.choices for trial in studies[choice.label].propose()]
        if not proposed:
            return studies
        jobs = [_job(search, choice, trial, record.folder) for choice, trial in proposed]
        for job in jobs:
            record.report(job)
        different = {tuple(job.overrides): job for job in jobs if job.status != DONE}
        if different:
            launch(list(different.values()))
        states = {tuple(job.overrides): job for job in record.jobs()}
        for (choice, trial), job in zip(proposed, jobs, strict=True):
            score = _score(search, record, states[tuple(job.overrides)])
            if score is not None and not math.isfinite(score):
                told = f"validation/{search.settings.objective} is {score}"
                tell(f"  {job.label}: {told}, not a finite number: this trial has no score.")
            studies[choice.label].tell(trial, score)


def _study(search: Search, choice: Choice, folder: Path) -> Study:
    """The study of ``choice``: another one where what is searched, or what its runs compute, has changed."""
    ends = [choice.job(choice.end(share)) for share in (0.0, 1.0)]
    runs = [locate(_composed(search.compose, end))[0] for end in ends]
    told = search.settings
    name = f"{choice.label} {'-'.join(runs)} {told.objective} seed={told.seed} batch={told.batch}".strip()
    folder.mkdir(parents=True, exist_ok=True)
    return Study(folder / JOURNAL, name, choice.space, told)


def _job(search: Search, choice: Choice, trial: Trial, folder: Path) -> Job:
    words = choice.job(trial)
    own = words[len(choice.overrides) :]
    run = locate(_composed(search.compose, words))[1]
    job = Job(words, " ".join([choice.label, *own]).strip(), os.path.relpath(run, folder))
    if status_of(run) == DONE:
        job.status, job.before = DONE, True
    return job


def _score(search: Search, record: SweepRecord, job: Job) -> float | None:
    if job.status != DONE or job.run is None:
        return None
    config = _composed(search.compose, job.overrides)
    try:
        return validation_score(record.folder / job.run, search.settings.objective, best_by(config.trainer))
    except InputError as error:
        job.status, job.reason = FAILED, str(error)
        record.report(job)
        return None


def best_by(trainer: TrainerConfig) -> KeptBest | None:
    """How Trainer chooses the student; None: it keeps the last."""
    if not trainer.load_best_model_at_end:
        return None
    by, less = trainer.best_by, not trainer.more_is_better
    if trainer.save_strategy != "steps":  # each evaluation, or each best one, is saved
        return KeptBest(by, less)
    usual = KeptBest(by, less, save_steps=500)  # of transformers
    return usual if trainer.save_steps is None else replace(usual, save_steps=trainer.save_steps)


def finish_search(search: Search, studies: Mapping[str, Study], record: SweepRecord, command: str) -> None:
    """Write and print what was found. Raises DistilError where a job failed."""
    jobs = record.jobs()
    error = ending(jobs, command)
    record.end(FAILED if error else DONE)
    runs = {tuple(job.overrides): job.run for job in jobs}
    found = [_found(choice, studies[choice.label], runs, record.folder) for choice in search.choices]
    told = {"objective": f"validation/{search.settings.objective}", "trials": search.settings.trials}
    write_json(record.folder / "search.json", {"format": 1, "command": command, **told, "choices": found})
    files = [
        file
        for choice, each in zip(search.choices, found, strict=True)
        if (file := _write(choice, each, record))
    ]
    _print(search, found, record, files)
    if error is not None:
        raise error


def _found(
    choice: Choice, study: Study, runs: Mapping[tuple[str, ...], str | None], folder: Path
) -> dict[str, Any]:
    """What the search of one choice came to, as it stands in ``search.json`` of ``folder``."""
    rows, ruined = [], set()
    for trial in study.trials():
        words = choice.job(trial)
        values = {key: json.loads(choice.space[key].written(each)) for key, each in trial.values.items()}
        run = runs.get(tuple(words))
        row = {"values": values, "score": trial.score, "run": run}
        if trial.score is not None and run is not None and _is_ruined(folder / run):
            ruined.add(trial.number)
            row["ruined"] = True
        rows.append(row)
    best = study.best(ruined)
    words = [] if best is None else choice.job(best)[len(choice.overrides) :]
    return {
        "choice": choice.label,
        "best": words,
        "score": None if best is None else best.score,
        "at_edge": [] if best is None else at_edge(choice.space, best, study.trials()),
        "trials": rows,
    }


def _is_ruined(run: Path) -> bool:
    """What its results say; False of a run directory that was removed since."""
    try:
        return mapping(read_json(run / RESULTS)).get("ruined") is True
    except (OSError, ValueError):
        return False


def _write(choice: Choice, found: Mapping[str, Any], record: SweepRecord) -> Path | None:
    """Options with what was found for ``choice``, where Hydra reads them for it alone."""
    if choice.file is None or not found["best"]:
        return None
    tree: dict[str, Any] = {}
    for word in found["best"]:
        key, _, value = word.partition("=")
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = float(value) if "." in value or "e" in value else int(value)
    path = record.folder / FOUND / choice.file
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# @package _global_\n# Found on the validation split: {len(found['trials'])} trials\n"
    write_text(path, head + yaml.safe_dump(tree, sort_keys=False))
    return path


def _print(
    search: Search, found: Sequence[Mapping[str, Any]], record: SweepRecord, files: Sequence[Path]
) -> None:
    table = Table(
        title=f"\nFound on the validation split ({search.settings.objective})", title_justify="left"
    )
    for column in ("choice", "best", search.settings.objective, "trials"):
        table.add_column(
            column, justify="right" if column in (search.settings.objective, "trials") else "left"
        )
    for each in found:
        done = sum(row["score"] is not None for row in each["trials"])
        none = "each is ruined" if done else "none is done"
        score = none if each["score"] is None else f"{each['score']:.4f}"
        table.add_row(each["choice"] or "All jobs", " ".join(each["best"]), score, str(done))
    console = Console(markup=False)  # a list of names, as in peft.target_modules=[q_proj], is none
    console.print(table)
    for each in found:
        if ruined := sum(row.get("ruined", False) for row in each["trials"]):
            told = "the student of 1 trial is" if ruined == 1 else f"the students of {ruined} trials are"
            console.print(
                f"{each['choice'] or 'All jobs'}: {told} ruined (every token the same probability), and not "
                "among the best.", highlight=False, soft_wrap=True,
            )  # fmt: skip
        for key in each["at_edge"]:
            console.print(
                f"{each['choice'] or 'All jobs'}: the best {key} lies at an end of what was tried. A wider "
                "interval, or more trials, show whether one beyond it is better.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    if files:
        console.print(
            f"To compare at what was found, put --config-dir {record.folder / FOUND} into the command of the "
            "comparison.", highlight=False, soft_wrap=True,
        )  # fmt: skip
    print(f"All trials: {record.folder / 'search.json'}", file=sys.stdout)


def _composed(compose: Compose, overrides: list[str]) -> ExperimentConfig:
    config = compose(overrides)
    if isinstance(config, InputError):
        raise config
    return config
