"""What became of the student in hand: where it came from, how it was trained, what no command can say."""

from __future__ import annotations

from collections.abc import Iterable
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

    def trains(self, config: DistillationConfig, *, resumed: bool, untold: Iterable[str]) -> Past:
        """A training begins, or goes on from a checkpoint (``resumed``). ``untold``: see there."""
        again = "it went on from an earlier training of the same object"
        first = [again] if self.trained and not resumed else []
        start = self.start if self.trained else self.came
        return replace(self, start=start, trained=True, untold=(*first, *untold), config=copy(config))

    def ended(self, step: int, steps: int) -> Past:
        """The training that began ended after ``step`` of ``steps`` optimizer steps."""
        if step >= steps:
            return self
        return replace(self, untold=(*self.untold, f"it was stopped after step {step} of {steps}"))

    def saved(self, folder: Path, base: str) -> Past:
        """The student is to be saved in ``folder``. ``base``: where it came from, unless it was loaded."""
        start = Path(self.keys.get("adapter") or self.keys.get("path") or base).expanduser()
        told = f"it began from what was in {folder}, where it is now itself"
        if (
            not self.trained
            or told in self.untold
            or not start.is_dir()
            or start.resolve() != folder.resolve()
        ):
            return self
        return replace(self, untold=(*self.untold, told))

    @property
    def keys(self) -> dict[str, Any]:
        """Keys of ``model.student`` for the last training; where there was none, for one that begins now."""
        return dict(self.came if self.start is None else self.start)
