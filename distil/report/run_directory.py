"""A run directory as one typed value. Reports have no other input.

Only ``status.json`` or ``config.yaml`` must be there: a run that failed or was interrupted has no results,
and its report says so. A file that cannot be read is named in ``RunRecord.problems``, one that is not as the
run left it in ``RunRecord.damaged``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distil.commands import resume_command
from distil.report.seal import since_done
from distil.run_files import CONFIG, COST, ENVIRONMENT, METRICS, RESULTS, SAMPLES, STATUS, STUDENT
from distil.system.files import read_json, read_text
from distil.system.locks import in_use_by
from distil.types import InputError

FORMAT = re.compile(r"[-+ ]?\d?\d?,?(\.\d\d?)?[eEfFgG%d]")
"""Format specs that are taken: somebody else's may ask for a billion digits."""
STATES = ("running", "done", "failed", "interrupted")
AFTER_DIVERGENCE = "the same command would meet that step again: change what the reason names"
"""What there is to do about a run that diverged."""
GONE = "not at work: its process is gone (killed, or its machine went down)"
"""What a run is that says it is running, and is not."""
Scores = Mapping[str, float | None]
"""Number by metric name. None: could not be computed (a division by zero, a NaN)."""
Curve = tuple[tuple[int, float | None], ...]
"""(optimizer step, value) in the order of steps. None: not a finite number, drawn as a gap."""


@dataclass(frozen=True)
class Metric:
    """What a row of the results table means."""

    name: str
    unit: str = ""
    higher_is_better: bool | None = None
    """None: neither direction is better (the length of responses)."""
    format: str = ".3f"
    """A Python format spec."""
    description: str = ""


@dataclass(frozen=True)
class Results:
    """``results.json``: the scores of the three models on the same held-out rows."""

    metrics: tuple[Metric, ...]
    teacher: Scores | None
    before: Scores
    after: Scores
    floor: Scores
    """What nobody can beat, for the metrics where that is known."""
    evaluation: Mapping[str, Any]
    data: Mapping[str, Any]
    notes: tuple[str, ...]
    ruined: bool = False
    """Whether the distilled student gives every token the same probability."""


@dataclass(frozen=True)
class Sample:
    """One held-out prompt, and what each model wrote to it. None: not asked."""

    prompt: str
    reference: str | None
    teacher: str | None
    before: str | None
    after: str | None


@dataclass(frozen=True)
class RunRecord:
    """Everything a run directory says."""

    path: Path
    status: str
    """``running``, ``done``, ``failed`` or ``interrupted``; ``unknown`` without a status.json."""
    reason: str
    """Why it failed or stopped; else empty."""
    started: str
    finished: str
    command: str
    """The command line that started it."""
    config: Mapping[str, Any]
    config_text: str
    environment: Mapping[str, Any]
    results: Results | None
    cost: Mapping[str, Any] | None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """By the scalar's name in metrics.jsonl (``train/loss``)."""
    clocks: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """``seconds`` and ``tokens``: what training had spent by each step."""
    samples: tuple[Sample, ...] = ()
    problems: tuple[str, ...] = ()
    """Files, or lines of them, that could not be read."""
    damaged: tuple[str, ...] = ()
    """Of a run that is done: files that are missing or changed since; large ones by their size."""
    diverged: bool = False
    """Whether it failed of losses or weights that were no numbers."""

    @property
    def state(self) -> str:
        """Its ``status``; GONE where that says running, and no process has its lock."""
        if self.status != "running":
            return self.status
        try:
            return self.status if in_use_by(self.path) is not None else GONE
        except OSError:  # no locks there: whether it is at work cannot be told
            return self.status

    @property
    def way_on(self) -> str | None:
        """The command that goes on with the run, if it is known: one that removes no checkpoint.

        None for a run that diverged: it would meet the same step again.
        """
        if self.diverged:
            return None
        settings = self.config.get("run")
        resumes = not isinstance(settings, Mapping) or settings.get("resume") is not False
        return resume_command(self.command, resumes) if self.command else None

    @property
    def student(self) -> Path | None:
        """The folder of the distilled student, if it was saved."""
        folder = self.path / STUDENT
        return folder if folder.is_dir() else None


def _run_near(path: Path) -> str:
    """The run directory around or below ``path``, as a question; empty where there is none."""
    if (path.parent / STATUS).is_file():
        return f"Did you mean {path.parent}?"
    below = [file for depth in ("*", "*/*") for file in path.glob(f"{depth}/{STATUS}") if file.is_file()]
    newest = max(below, key=lambda file: file.stat().st_mtime, default=None)
    return f"Did you mean {newest.parent}, the newest below it?" if newest else ""


def read_run(path: Path) -> RunRecord:
    """Read the run directory ``path``. Raises InputError if it is not one."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder. Give the run directory that a run printed at its end.")
    if not (path / STATUS).is_file() and not (path / CONFIG).is_file():
        way_out = _run_near(path) or (
            "Give the folder of one run, such as outputs/<name>/<method>-<model>-<peft>-s<seed>-<hash>."
        )
        raise InputError(
            f"{path} is not a run directory: it has neither status.json nor config.yaml. {way_out}"
        )
    problems: list[str] = []
    status = _object(path / STATUS, problems)
    if status.get("status") not in STATES and (path / STATUS).is_file() and not problems:
        problems.append(f"{STATUS} does not say how the run ended.")
    environment = _object(path / ENVIRONMENT, problems)
    results = _object(path / RESULTS, problems)
    config, config_text = _config(path / CONFIG, problems)
    curves, clocks = _curves(path / METRICS, problems)
    return RunRecord(
        path=path,
        status=_text(status.get("status")) or "unknown",
        reason=_text(status.get("reason")),
        started=_text(status.get("started")),
        finished=_text(status.get("finished")),
        command=_text(environment.get("command")) or _text(status.get("command")),
        config=config,
        config_text=config_text,
        environment=environment,
        results=_results(results) if results else None,
        cost=_object(path / COST, problems) or None,
        curves=curves,
        clocks=clocks,
        samples=tuple(_sample(line) for line in _lines(path / SAMPLES, problems)),
        problems=tuple(problems),
        damaged=since_done(path) if status.get("status") in ("done", None) else (),
        diverged=status.get("diverged") is True,
    )


def number(value: Any) -> float | None:
    """``value`` if it is a finite number, else None (null, NaN, infinity, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that no float holds
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """``value`` as text; a list (a command line) joined by spaces; null and missing are empty."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)


def _object(path: Path, problems: list[str]) -> Mapping[str, Any]:
    """The JSON object in ``path``; empty where the file is missing or (``problems`` says so) broken."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} holds no JSON object.")
    return mapping(value)


def _lines(path: Path, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a .jsonl file. Broken ones (the last, after a crash) are counted and skipped."""
    broken = 0
    try:
        lines = read_text(path, "replace").split("\n")
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return
    for line in filter(str.strip, lines):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # RecursionError: nested without end
            value = None
        if isinstance(value, dict):
            yield value
        else:
            broken += 1
    if broken:
        problems.append(f"{path.name}: lines that cannot be read and are left out: {broken}.")


def _config(path: Path, problems: list[str]) -> tuple[Mapping[str, Any], str]:
    """The config parsed, and its text as written."""
    import yaml

    try:
        text = read_text(path, "replace")
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if not isinstance(value, dict):
            problems.append(f"{path.name} holds no mapping.")
        return mapping(value), text
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}, ""
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        problems.append(f"{path.name} cannot be read: {error}")
        return {}, text


def _results(raw: Mapping[str, Any]) -> Results:
    def scores(key: str) -> Scores:
        return {name: number(value) for name, value in mapping(raw.get(key)).items()}

    return Results(
        metrics=tuple(_metric(name, mapping(value)) for name, value in mapping(raw.get("metrics")).items()),
        teacher=scores("teacher") if raw.get("teacher") is not None else None,
        before=scores("student_before"),
        after=scores("student_after"),
        floor=scores("floor"),
        evaluation=mapping(raw.get("evaluation")),
        data=mapping(raw.get("data")),
        notes=tuple(map(str, notes)) if isinstance(notes := raw.get("notes"), list) else (),
        ruined=raw.get("ruined") is True,
    )


def _metric(name: str, raw: Mapping[str, Any]) -> Metric:
    better = raw.get("higher_is_better")
    spec = _text(raw.get("format"))
    return Metric(
        name=name,
        unit=_text(raw.get("unit")),
        higher_is_better=better if isinstance(better, bool) else None,
        format=spec if FORMAT.fullmatch(spec) else Metric.format,
        description=_text(raw.get("description")),
    )


def _sample(raw: Mapping[str, Any]) -> Sample:
    return Sample(
        prompt=_text(raw.get("prompt")),
        reference=_optional(raw.get("reference")),
        teacher=_optional(raw.get("teacher")),
        before=_optional(raw.get("student_before")),
        after=_optional(raw.get("student_after")),
    )


def _curves(path: Path, problems: list[str]) -> tuple[dict[str, Curve], dict[str, dict[int, float]]]:
    """Every scalar of metrics.jsonl by step, and the clocks beside them.

    A resumed run wrote some steps twice: the later counts.
    """
    points: dict[str, dict[int, float | None]] = {}
    clocks: dict[str, dict[int, float]] = {"seconds": {}, "tokens": {}}
    for line in _lines(path, problems):
        step = number(line.get("step"))
        if step is None:
            continue
        for name, clock in clocks.items():
            if (spent := number(line.get(name))) is not None:
                clock[int(step)] = spent
        for name, value in line.items():
            if "/" in name:
                points.setdefault(name, {})[int(step)] = number(value)
    return {name: tuple(sorted(by_step.items())) for name, by_step in points.items()}, clocks
