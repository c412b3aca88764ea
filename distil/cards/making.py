"""How a student was made: its objective, its origins, its settings, the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from distil.cards.text import code, facts_table, plain
from distil.methods.base import METHODS
from distil.report import words
from distil.report.run_directory import mapping, number
from distil.system.sharing import shareable_command
from distil.types import ROLLOUT

if TYPE_CHECKING:
    from distil.cards.subject import Subject
    from distil.config.schema import ExperimentConfig
    from distil.losses import Term
    from distil.origins import Origin
    from distil.report.run_directory import RunRecord

SYMBOLS = {"temperature": "T", "kd_loss_weight": "α", "lambda_gkd": "λ", "mixture_weight": "w", "skew": "s"}
SCORES = {
    "cross_entropy": "cross-entropy",
    "forward_kl": "KL(teacher ‖ student)",
    "reverse_kl": "KL(student ‖ teacher)",
    "jsd": "JSD(teacher, student)",
}
SHAPE = ("r", "lora_alpha", "bits", "num_virtual_tokens")
"""Keys of an adapter that say how large it is."""
VERSIONS = ("distil-runner", "torch", "transformers", "peft")


def making_parts(subject: Subject) -> Iterator[str]:
    """Heading, objective, table of facts, command."""
    yield "## How it was made"
    yield _objective(subject.config)
    yield facts_table(_facts(subject))
    yield code(shareable_command(subject.record.command), "bash")
    yield f"[config.yaml](config.yaml) holds every setting. {_versions(subject.record)}".strip()


def _objective(config: ExperimentConfig) -> str:
    """The loss in one line, from the method's terms, and what the method is for."""
    entry = METHODS.get(config.method.name)
    terms = [term for term in entry.factory(config.method).terms(0) if term.weight]
    about = (entry.factory.__doc__ or "").strip().partition("\n")[0]
    return f"Loss: {' + '.join(map(_term, terms))}. {about}".strip()


def _term(term: Term) -> str:
    score = getattr(term.score, "__name__", "")
    text = SCORES.get(score, term.name.replace("_", " "))
    weight = "" if term.weight == 1 else f"{term.weight:.4g} · "
    text += f" at T = {term.temperature:g}" if term.temperature != 1 else ""
    return f"{weight}{text}{' on text that the student wrote itself' if term.sequences is ROLLOUT else ''}"


def _facts(subject: Subject) -> Iterator[tuple[str, str]]:
    config, record, teacher, start = subject.config, subject.record, subject.teacher, subject.start
    yield "method", _method(subject)
    if teacher is not None:
        held = config.model.teacher.quantization
        yield "teacher", f"{teacher.link}{f', held as {held}' if held else ''}{_licensed(teacher)}"
    yield "student before", f"{start.link}{subject.changed}{_licensed(start)}"
    if subject.run.adapter.adapts:
        yield "trained", _adapter(subject)
    split = mapping(record.results.data if record.results else None)
    counts = ((split.get(f"{name}_rows"), name) for name in ("train", "validation", "test"))
    rows = ", ".join(f"{n:,} {name}" for n, name in counts if isinstance(n, int))
    yield "data", f"{subject.data.link}{f': rows {rows}' if rows else ''}"
    yield "steps", ", ".join(_schedule(record))
    yield "seed", str(config.seed)
    took = dict(words.cost_facts(record.cost or {})).get("training", "")
    device = str(record.environment.get("device") or "")
    yield "training took", " ".join(filter(None, (took, f"on {plain(device)}" if device else "")))


def _method(subject: Subject) -> str:
    method = subject.config.method
    ignored = set(map(str, subject.record.environment.get("ignored") or ()))
    values = {
        f"{key} {SYMBOLS[key]}" if key in SYMBOLS else key: value
        for key, value in vars(method).items()
        if key != "name" and f"method.{key}" not in ignored
    }
    return ", ".join([f"`{method.name}`", *(f"{key} = {_shown(value)}" for key, value in values.items())])


def _licensed(origin: Origin) -> str:
    return f" ({plain(origin.license)})" if origin.license else ""


def _adapter(subject: Subject) -> str:
    trained, whole = subject.parameters("trainable"), subject.parameters("student")
    told = [f"{key} = {_shown(value)}" for key, value in vars(subject.config.peft).items() if key in SHAPE]
    if trained and whole:
        told.append(f"{words.parameters(trained)} parameters ({100 * trained / whole:.2g} %)")
    told += ["merged into the weights here"] if subject.kind == "merged" else []
    return ", ".join([f"an adapter, `{subject.config.peft.name}`", *told])


def _schedule(record: RunRecord) -> Iterator[str]:
    trainer: Mapping[str, Any] = mapping(record.config.get("trainer"))
    batch, window = (
        trainer.get(key) for key in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    steps = number((record.cost or {}).get("steps"))
    processes = number(record.environment.get("processes")) or 1
    rows = f" of {batch * (window or 1) * processes:.0f} rows" if isinstance(batch, int) else ""
    yield f"{steps:,.0f}{rows}" if steps else f"steps{rows}"
    if (rate := trainer.get("learning_rate")) is not None:
        yield f"learning rate {_shown(rate)}"
    if kind := trainer.get("lr_scheduler_type"):
        yield f"{kind} schedule"
    if warmup := number(trainer.get("warmup_steps")):
        share = f"the first {100 * warmup:.3g} % warm-up"
        yield share if warmup < 1 else f"{warmup:g} warm-up step{'' if warmup == 1 else 's'}"


def _versions(record: RunRecord) -> str:
    versions = mapping(record.environment.get("versions"))
    told = [f"{name} {versions[name]}" for name in VERSIONS if name in versions]
    return f"Made with {', '.join(told)}." if told else ""


def _shown(value: Any) -> str:
    """A setting as a person writes it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
