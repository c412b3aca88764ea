"""Running means of named numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import SupportsFloat

from distil.api.errors import ArgumentError
from distil.registry import unknown_name


class MetricTracker:
    """Collects numbers by name and gives their arithmetic means."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def update(self, name: str, value: SupportsFloat) -> None:
        """Add one value of ``name``: a number, or a tensor of one element."""
        self._values[name].append(float(value))

    def get_average(self, name: str) -> float:
        """The mean of all values of ``name``. ValueError where there is none."""
        if name not in self._values:
            raise ArgumentError(unknown_name("name", name, self._values))
        values = self._values[name]
        return math.fsum(values) / len(values)

    def get_all_metrics(self) -> dict[str, float]:
        """The mean of every name, in the order in which they came."""
        return {name: self.get_average(name) for name in self._values}

    def reset(self) -> None:
        """Forget everything."""
        self._values.clear()
