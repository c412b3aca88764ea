"""Numbers and facts of a run in words: what the terminal and the page both say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from distil.report import palette
from distil.report.run_directory import Metric, Results, Sample, mapping, number
from distil.system.units import duration, human_bytes

NOTHING = "–"
"""Stands for a number that is not there."""
FLOOR = "floor: the entropy of the source on these rows; nobody beats it but by chance, on few rows"
"""What the word means, where a table has one."""


HUGE = 1e7
"""From here on a score is written with its exponent."""
WIDE = 0.2
"""Half of the interval of a share over rows from which on they are few: 24 of them."""


@dataclass(frozen=True)
class Change:
    """After less before: the signed number, and ``better``, ``worse``, or empty where neither is meant."""

    text: str
    verdict: str


def score(value: float | None, metric: Metric) -> str:
    """``value`` in the metric's own format."""
    if value is None:
        return NOTHING
    if abs(value) >= HUGE:  # the perplexity of a collapsed student has hundreds of digits
        return f"{value:.3g}"
    try:
        return format(value, metric.format)
    except ValueError:  # The format of somebody else's metric; the number still counts.
        return f"{value:.4g}"


def change(results: Results, metric: Metric) -> Change:
    """What distilling did to ``metric``. A difference that rounds to nothing has no verdict."""
    before, after = results.before.get(metric.name), results.after.get(metric.name)
    if before is None or after is None:
        return Change(NOTHING, "")
    text = score(after - before, metric).replace("%", " pp")  # A difference of shares: percentage points.
    text = text.strip().removeprefix("+")  # of a format with a sign of its own
    if not any(digit in text for digit in "123456789"):
        return Change(text.lstrip("-"), "")
    verdict = "" if metric.higher_is_better is None else _verdict(after - before, metric.higher_is_better)
    return Change(text if text.startswith("-") else f"+{text}", verdict)


def _verdict(difference: float, higher_is_better: bool) -> str:
    return "better" if (difference > 0) == higher_is_better else "worse"


def arrow(metric: Metric) -> str:
    """The direction that is better."""
    return {True: "↑", False: "↓", None: ""}[metric.higher_is_better]


def moment(text: str) -> str:
    """An ISO time as ``2026-11-24 10:02 UTC``; any other text as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".rstrip()


def number_of(count: int, what: str) -> str:
    """``3 runs``, ``1 run``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def parameters(amount: float) -> str:
    """A number of parameters as ``820 k`` or ``1.54 B``."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= 0.9995 * scale:  # From here three digits round up to 1.
            return f"{amount / scale:.3g} {unit}"
    return f"{amount:.0f}"


_TIMES = (
    ("in all", "total"),
    ("training", "train"),
    ("validation on the way", "validation"),
    ("loading", "load"),
    ("teacher cache", "teacher_cache"),
    ("evaluation", "evaluate"),
)
_COUNTED = ("teacher", "student", "trainable")
_ENDINGS = {
    "steps": " steps",
    "a step": " a step",
    "scored tokens": " scored tokens",
    "tokens a second": " a second",
    "sampled tokens": " sampled tokens",
    "peak memory": " of memory at the peak",
    "product": " on disk",
}


def cost_facts(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run cost, as (what, how much), leaving out what was not measured."""
    seconds, counted = mapping(cost.get("seconds")), mapping(cost.get("parameters"))
    train, tokens = number(seconds.get("train")), number(cost.get("scored_tokens"))
    facts = [(what, _fact(number(seconds.get(key)), duration)) for what, key in _TIMES]
    facts.append(("steps", _fact(number(cost.get("steps")), "{:,.0f}".format)))
    facts.append(("a step", _fact(number(cost.get("seconds_per_step")), lambda s: f"{s:.3g} s")))
    facts.append(("scored tokens", _fact(tokens, "{:,.0f}".format)))
    facts.append(("tokens a second", _fact(tokens / train if tokens and train else None, "{:,.0f}".format)))
    facts.append(("sampled tokens", _fact(number(cost.get("rollout_tokens")) or None, "{:,.0f}".format)))
    facts.append(("peak memory", _fact(number(cost.get("peak_memory_bytes")), human_bytes)))
    facts.append(("product", _fact(number(cost.get("student_bytes")), human_bytes)))
    facts += [(f"{who} parameters", _fact(number(counted.get(who)), parameters)) for who in _COUNTED]
    facts.append(("trainable share", _share(counted)))
    return [(what, value) for what, value in facts if value]


def cost_sentence(cost: Mapping[str, Any]) -> str:
    """``cost_facts`` as one line."""
    facts = dict(cost_facts(cost))
    times = ", ".join(f"{what} {facts[what]}" for what, _ in _TIMES[1:] if what in facts)
    said = [" ".join(filter(None, (facts.get("in all", ""), f"({times})" if times else "")))]
    endings = {what: ending for what, ending in _ENDINGS.items() if what in facts}
    said += [
        facts[what] + (end.removesuffix("s") if facts[what] == "1" else end) for what, end in endings.items()
    ]
    counted = ", ".join(f"{who} {facts[key]}" for who in _COUNTED if (key := f"{who} parameters") in facts)
    counted += f" ({facts['trainable share']})" if "trainable share" in facts else ""
    return "; ".join(filter(None, (*said, f"parameters: {counted}" if counted else "")))


def taken_over(cost: Mapping[str, Any]) -> str:
    """Whose scores another run had found, and which run; empty where this one evaluated all itself."""
    names = {"teacher": "the teacher", "student_before": "the untouched student"}
    by_run: dict[str, list[str]] = {}
    for who, run in mapping(cost.get("scores_taken_over")).items():
        by_run.setdefault(str(run), []).append(names.get(who, who))
    told = (f"those of {' and '.join(who)} are from {run}" for run, who in by_run.items())
    return f"Scores taken over: {'; '.join(told)}." if by_run else ""


def _share(counted: Mapping[str, Any]) -> str:
    """The trained part of the student in percent; empty where all of it is trained."""
    trained, whole = number(counted.get("trainable")), number(counted.get("student"))
    return f"{100 * trained / whole:.2g} %" if trained and whole and trained < whole else ""


def _fact(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None else show(value)


def evaluated_on(results: Results) -> str:
    """On which rows the scores were taken, how the answers were generated, and what few rows mean."""
    return told_of_rows(evaluated_parts(results.evaluation), few_rows(results.evaluation))


def told_of_rows(parts: Sequence[str], few: str) -> str:
    """``evaluated_parts`` as a sentence, and ``few_rows`` behind it; empty where nothing is known."""
    return " ".join(filter(None, (f"Evaluated {'; '.join(parts)}." if parts else "", few)))


def evaluated_parts(evaluation: Mapping[str, Any]) -> list[str]:
    """Which rows were scored, and how many of them were answered and how: so much of it as is known."""
    rows, tokens, answers = _counts(evaluation)
    parts = []
    if rows is not None:
        scored = f" ({tokens:,.0f} scored tokens)" if tokens is not None else ""
        same = "one row" if rows == 1 else f"same {rows:,.0f} rows"
        parts.append(f"on the {same} of the {evaluation.get('split', 'held-out')} split{scored}")
    if answers:
        how = "greedy"
        if evaluation.get("do_sample"):
            how = f"sampled at temperature {evaluation.get('sampling_temperature')}"
            how += f", top_k {evaluation.get('top_k')}, top_p {evaluation.get('top_p')}"
        most = f"at most {evaluation.get('max_new_tokens')} new tokens"
        parts.append(f"{answers:,.0f} of them answered, {how}, {most}")
    return parts


def few_rows(evaluation: Mapping[str, Any]) -> str:
    """How far scores may lie from those on other rows of their kind, where rows or answers are few."""
    rows, _, answers = _counts(evaluation)
    counts = {"row": rows} | ({"answer": answers} if answers != rows else {})
    few = {what: int(n) for what, n in counts.items() if n and n > 0 and half_of_share(n) >= WIDE}
    if not few:
        return ""
    which = " and ".join(number_of(n, what) for what, n in few.items())
    apart = " and ".join(f"{half_of_share(n):.2f}" for n in few.values())
    are = "is" if which == "1 row" else "are"
    return f"{which} {are} few: on others of their kind a share may come out {apart} higher or lower (95 %)."


def half_of_share(rows: float) -> float:
    """Half of the 95 % interval of a share of ``rows`` rows, where it is widest: of one half."""
    return 1.96 * math.sqrt(0.25 / rows)


def _counts(evaluation: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Rows, scored tokens, answers."""
    return tuple(number(evaluation.get(key)) for key in ("rows", "scored_tokens", "generation_rows"))


def notes(results: Results) -> list[str]:
    """What a reader must know beside the scores: the run's notes, and the rows that were left out and why."""
    dropped = {reason: n for reason, n in mapping(results.data.get("dropped")).items() if number(n)}
    said = list(results.notes)
    if dropped:
        one = len(dropped) == 1
        reasons = ", ".join(reason if one else f"{n:,} {reason}" for reason, n in dropped.items())
        total = sum(dropped.values())
        kept = [number(results.data.get(f"{split}_rows")) for split in ("train", "validation", "test")]
        rows = "1 row of the data" if total == 1 else f"{total:,} rows of the data"
        if all(kept):  # a cap may have ended the reading
            rows = f"{total:,} of {int(total + sum(filter(None, kept))):,} rows that were read"
        said.append(f"{rows} {'was' if total == 1 else 'were'} left out: {reasons}.")
    return said


def texts(sample: Sample) -> list[tuple[palette.Role, str]]:
    """Reference, teacher, before, after: whose text, and the text, leaving out who was not asked."""
    written = (sample.reference, sample.teacher, sample.before, sample.after)
    pairs = zip(palette.ROLES, written, strict=True)
    return [(role, with_breaks(text)) for role, text in pairs if text is not None]


def with_breaks(text: str) -> str:
    """``text`` with the line breaks that it begins with shown as ⏎: it would look empty."""
    rest = text.lstrip()
    return "⏎" * text[: len(text) - len(rest)].count("\n") + rest if text.startswith("\n") else text
