"""Config keys that change no result: a run's identity leaves them out, and no comparison lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

WITHOUT_EFFECT = (
    # where the run lies, and who watches
    "name",
    "output_dir",
    "tracker",
    "compare",
    "teacher_cache.folder",
    # how it is started; what plugins hold enters as fingerprints
    "run.resume",
    "run.rerun",
    "run.allow_network",
    "run.plugins",
    "run.detect_anomaly",
    # a run that is done needed no more of them, and its results say how many
    "run.max_skipped_steps",
    # how much of it is shown
    "eval.samples",
    # how many rows are scored at once: rounding aside, the same scores
    "eval.batch_size",
    "trainer.per_device_eval_batch_size",
    "trainer.log_*",
    "trainer.logging_*",
    "trainer.skip_memory_metrics",
    # loading in other processes gives the same batches
    "trainer.dataloader_num_workers",
    "trainer.dataloader_pin_memory",
    "trainer.dataloader_prefetch_factor",
    "trainer.dataloader_persistent_workers",
)
"""Dotted keys (patterns) that change no result."""

EXACT = 2**53
"""From here on a float is no whole number for sure, and 1e30 would be written out."""

SAVING = ("trainer.save_*",)
"""When checkpoints are written: without effect unless the best of them becomes the product."""


def with_effect(config: Mapping[str, Any], unused: Iterable[str] = ()) -> dict[str, Any]:
    """The leaves of ``config`` by dotted key that can change a result; 2 and 2.0 are one value.

    Args:
        config: nested mappings. Lists are leaves.
        unused: further dotted keys (patterns) to leave out: those that a run does not use.
    """
    trainer = config.get("trainer")
    best = isinstance(trainer, Mapping) and trainer.get("load_best_model_at_end")
    without = (*WITHOUT_EFFECT, *unused, *(() if best else SAVING))
    return {key: value for key, value in leaves(plain(config)).items() if not _matches(key, without)}


def leaves(value: Any, key: str = "", join: str = ".") -> dict[str, Any]:
    """What nested mappings hold, by the path to it below ``key``: ``peft.r``. Lists are leaves."""
    if isinstance(value, Mapping) and value:
        return {
            inner: leaf
            for name, item in value.items()
            for inner, leaf in leaves(item, f"{key}{join}{name}" if key else str(name), join).items()
        }
    return {key: value}


def plain(value: Any) -> Any:
    """``value`` with 2.0 as 2, inside lists and mappings too: what is one value has one form."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return value


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) or key.startswith(f"{pattern}.") for pattern in patterns)
