"""What is allowed but rarely meant: said once before training, and kept among the notes of the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean

from distil.config.schema import ExperimentConfig, ModelConfig
from distil.divergences import forward_kl
from distil.losses import Term, cross_entropy

USUAL_TEMPERATURES = (1.0, 5.0)
WORSE = 1e-3
"""What a score must have got worse by, as a share of it: less is chance, and is not seen in what is shown."""
WEAKER = 0.02
"""What a teacher's nll must be above its student's, as a share of it: models that know little differ, too."""
LEARNT = ("nll", "kl_to_teacher")
"""Metrics of which a method makes at least one better, whatever it learns from."""
SAME = 1e-6
"""Of two values, how far apart they may be by rounding, as a share."""
NLL = "eval_nll_per_token"
"""What the trainer logs of an evaluation on the way."""
SMALLER = (
    "give a smaller model (model.student.path=), or keep only some of its layers "
    "(model.student.keep_layers=)."
)
"""How a run comes to a student that is smaller than its teacher."""

BLOCKS = 9
"""Consecutive means that a trend is looked for in: neighbours of a curve are alike, means of many less so.
An odd number: a curve is cut at the same places from either end."""
SURE = 1.64
"""Standard deviations of Kendall's S from which on a trend counts: one curve in twenty without one has it, in
each direction."""


def setback(
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    terms: Sequence[Term],
    learning_rate: float | None,
    history: Sequence[Mapping[str, float]],
    notes: Sequence[str],
) -> str | None:
    """A line where training made the student worse: by every one of LEARNT that was measured; else None.

    Args:
        before: scores of the untouched student, by metric; None: could not be computed.
        after: those of the distilled one, on the same rows.
        terms: of the method. Of one that follows its teacher alone, likelihood alone says nothing.
        learning_rate: of the training, for the way out.
        history: what the trainer logged, in the order of its steps: what speaks for a way out.
        notes: of the run: what they advise is not advised again.
    """
    pairs = {name: (before[name], after.get(name)) for name in LEARNT if before.get(name) is not None}
    told = [
        f"{name} {was:.4g} before, {'no number' if now is None else f'{now:.4g}'} after"
        for name, (was, now) in pairs.items()
        if was is not None and (now is None or not now <= was + WORSE * abs(was))
    ]
    follows = not any(term.weight and term.score is cross_entropy for term in terms)
    broken = any(now is None for _, now in pairs.values())
    if not pairs or len(told) < len(pairs) or (follows and not broken and [*pairs] == ["nll"]):
        return None
    losses = [entry["loss"] for entry in history if math.isfinite(entry.get("loss", math.nan))]
    line = f"The distilled student is worse than the untouched one on the test rows: {'; '.join(told)}."
    was = "" if learning_rate is None else f" (it was {learning_rate:g})"
    rate = f"lower trainer.learning_rate{was} may help."
    if broken:
        way = f"A {rate}"
    elif trend(losses) > 0:
        way = f"Its loss rose in training: a {rate}"
    else:
        way = _by_the_curves(losses, history, before.get("nll"), rate)
    again = rate in way and any("trainer.learning_rate" in note for note in notes)
    return line if again else f"{line} {way}".rstrip()


def ruined(
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    vocabulary: int,
    learning_rate: float | None,
) -> str | None:
    """A line where the distilled student gives all of ``vocabulary`` tokens one probability: its nll is the
    logarithm of their number, whatever the rows. None else, and where the untouched student did so, too."""
    level, was, now = math.log(vocabulary), before.get("nll"), after.get("nll")
    if (
        now is None
        or abs(now - level) > SAME * level
        or (was is not None and abs(was - level) <= SAME * level)
    ):
        return None
    rate = "" if learning_rate is None else f" (it was {learning_rate:g})"
    return (
        f"The distilled student is ruined: it gives each of its {vocabulary:,} tokens the same probability, "
        f"whatever it reads (nll {now:.4g}). A lower trainer.learning_rate{rate} may help."
    )


def weak_teacher(
    teacher: Mapping[str, float | None], before: Mapping[str, float | None], terms: Sequence[Term]
) -> str | None:
    """A line where the teacher of ``terms`` knows the test rows less well than the untouched student, by nll;
    else None."""
    theirs, own = teacher.get("nll"), before.get("nll")
    if theirs is None or own is None or not any(term.weight and term.needs_teacher for term in terms):
        return None
    if theirs <= own + WEAKER * abs(own):
        return None
    return (
        f"The teacher is worse than the untouched student on the test rows: nll {theirs:.4g}, the student "
        f"{own:.4g}. Are model.teacher.path and model.student.path the right way round, and are the rows of "
        "the kind that the teacher was trained on?"
    )


def _by_the_curves(
    losses: Sequence[float], history: Sequence[Mapping[str, float]], untouched: float | None, rate: str
) -> str:
    """Whether the curves speak for more steps, for fewer or for a lower ``rate``; empty where for none.

    ``untouched``: the nll of the untouched student, of the test rows. The curve is of the validation rows:
    the nearest that there is to compare.
    """
    curve = [(entry[NLL], int(entry["step"])) for entry in history if math.isfinite(entry.get(NLL, math.nan))]
    values = [value for value, _ in curve]
    if curve and values[-1] > min(values) * (1 + WORSE):
        lowest, step = min(curve)
        if untouched is not None and lowest >= untouched:
            return (
                f"Its validation nll was at best {lowest:.4g} (step {step}), no better than the untouched "
                f"student on the test rows: a {rate}"
            )
        return (
            f"Its validation nll was lowest at step {step} ({lowest:.4g}; {values[-1]:.4g} at the end): "
            "fewer steps, or more rows, may help."
        )
    falls = len(values) > 1 and values[-1] < values[-2] * (1 - WORSE)
    if falls or trend(losses[len(losses) // 2 :]) < 0:
        what = "validation nll" if falls else "loss"
        return (
            f"Its {what} was still falling at the end: more steps (trainer.max_steps or "
            "trainer.num_train_epochs) may help."
        )
    return ""


def trend(values: Sequence[float]) -> int:
    """1 where ``values`` rise, -1 where they fall, 0 where that may be chance (as of fewer than four).

    Kendall's S, how many pairs rise less how many fall, against its variance without a trend: n (n - 1)
    (2 n + 5) / 18. Mann 1945, Econometrica 13. That is of values that do not depend on each other, so it is
    taken of the means of BLOCKS parts. Where neighbours correlate by 0.5, 7 % of curves of 25 values without
    a trend have one in each direction, and 5 % of those of 50.
    """
    n = min(len(values), BLOCKS)
    cuts = [round(i * len(values) / n) for i in range(n + 1)] if n else []
    means = [fmean(values[start:end]) for start, end in pairwise(cuts)]
    s = sum((b > a) - (b < a) for a, b in combinations(means, 2))
    if abs(s) - 1 <= SURE * math.sqrt(n * (n - 1) * (2 * n + 5) / 18):
        return 0
    return 1 if s > 0 else -1


def advice(
    config: ExperimentConfig,
    terms: Sequence[Term],
    steps: int,
    warmup_steps: int,
    smaller: str | None = SMALLER,
) -> list[str]:
    """One line for each odd thing about a run of ``steps`` optimizer steps with these ``terms``; of its
    learning rate the adapter tells (``Adapter.odd_rate``), before anything loads.

    ``smaller``: what to do where the config makes the whole teacher its student; None: it is not, whatever
    the config says.
    """
    said = []
    if warmup_steps >= steps:
        said.append(
            f"trainer.warmup_steps={warmup_steps}, but the run has {steps} step{'s' * (steps != 1)}: "
            "it never reaches "
            f"trainer.learning_rate={config.trainer.learning_rate}. Try trainer.warmup_steps={steps // 10}."
        )
    elif warmup_steps > steps / 2:
        said.append(
            f"trainer.warmup_steps={warmup_steps} is most of the run's {steps} steps: they are taken below "
            f"trainer.learning_rate={config.trainer.learning_rate}. Try trainer.warmup_steps={steps // 10}."
        )
    active = [term for term in terms if term.weight]
    covers = any(term.score in (cross_entropy, forward_kl) for term in active)
    if config.model.student.init == "random" and not covers:
        said.append(
            "A student with random weights collapses under reverse KL or JSD alone: start from a pretrained "
            "or pruned student, or add cross-entropy (method.kd_loss_weight below 1)."
        )
    low, high = USUAL_TEMPERATURES
    odd = sorted({t.temperature for t in active if t.needs_teacher and not low <= t.temperature <= high})
    if odd:
        said.append(
            f"method.temperature={', '.join(map(str, odd))} is unusual: {low:g} to {high:g} is where "
            "it helps."
        )
    asked = any(term.needs_teacher for term in active)
    if smaller and asked and config.peft.name == "none" and _is_whole_teacher(config.model):
        said.append(f"The student is the whole teacher, so nothing gets smaller: {smaller}")
    return said


def _is_whole_teacher(model: ModelConfig) -> bool:
    teacher, student = model.teacher, model.student
    same = student.path is None or (student.path, student.revision) == (teacher.path, teacher.revision)
    made = student.init != "pretrained" or student.keep_layers is not None or student.adapter is not None
    other = teacher.quantization is not None or student.gguf_file != teacher.gguf_file
    return teacher.path is not None and same and not made and not other
