"""What became of the student in hand: where it came from, how it was trained, what no command can say."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil.api.config import DistillationConfig


@dataclass(frozen=True)
class Past:
    """Of the student in hand. Each event gives a new one."""

    came: dict[str, str] = field(default_factory=dict)
    """Keys of ``model.student`` that bring what it is, or was before training: empty, the config's own."""
    start: dict[str, str] | None = None
    """Those from which the last training started; None: there was none."""
    trained: bool = False
    """Whether it was trained here since it came."""
    untold: tuple[str, ...] = ()
    """What the last training had that no command line says."""
    config: DistillationConfig | None = None
    """What the last training was asked; the caller's own may have changed since."""

    def loaded(self, folder: Path, *, adapter: bool) -> Past:
        """A student was taken from ``folder``: a whole one, or an adapter onto the base that is here."""
        base = {"path": self.came["path"]} if adapter and "path" in self.came else {}
        return replace(self, came=base | {"adapter" if adapter else "path": str(folder)}, trained=False)

    def trains(
        self, config: DistillationConfig, *, resumed: bool, own_arguments: bool, bits: int | None
    ) -> Past:
        """A training begins, or goes on from a checkpoint (``resumed``).

        ``bits``: in how many the base is held where its adapter does not say so.
        """
        untold = {
            "it went on from an earlier training of the same object": self.trained and not resumed,
            "its TrainingArguments were the caller's own": own_arguments,
            f"its base was held in {bits} bits under an adapter that is not qlora": bits is not None,
        }
        start = self.start if self.trained else self.came
        told = tuple(words for words, holds in untold.items() if holds)
        return replace(self, start=start, trained=True, untold=told, config=copy(config))

    @property
    def keys(self) -> dict[str, Any]:
        """Keys of ``model.student`` for the last training; where there was none, for one that begins now."""
        return dict(self.came if self.start is None else self.start)
