"""Running means of named numbers."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import SupportsFloat

from distil.api.errors import ArgumentError, require
from distil.registry import unknown_name


class MetricTracker:
    """Collects numbers by name and gives their arithmetic means, each value counting the same."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def update(self, name: str, value: SupportsFloat) -> None:
        """Add one value.

        Args:
            name: what it is a value of; a new name begins a new mean.
            value: a number, or a tensor of one element.

        Raises:
            ArgumentError: for what is no number.
        """
        require(isinstance(name, str), f"name={name!r} is a {type(name).__name__}: give a text.")
        require(not isinstance(value, (str, bool)), f"value={value!r} of {name} is no number: give one.")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"value={value!r} of {name} is no number: give one.") from error
        self._values[name].append(number)

    def get_average(self, name: str) -> float:
        """The arithmetic mean of all values of one name.

        Args:
            name: as it was given to ``update``.

        Returns:
            The mean, in the unit of the values.

        Raises:
            ValueError: where ``name`` has no value; the message names the nearest that has.
        """
        if name not in self._values:
            raise ArgumentError(unknown_name("name", name, self._values))
        values = self._values[name]
        return fmean(values)

    def get_all_metrics(self) -> dict[str, float]:
        """The means of all names.

        Returns:
            Name to mean, in the order in which the names came, in the unit of the values.
        """
        return {name: self.get_average(name) for name in self._values}

    def reset(self) -> None:
        """Forget all values of all names."""
        self._values.clear()
