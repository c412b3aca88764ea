"""Means over seeds and paired differences, each with its 95 % interval of Student's t.

Standard library only: the quantile of t comes from inverting the regularised incomplete beta function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

CONFIDENCE = 0.95
LARGEST = 1e100
"""Beyond this a value is none: the squares of larger ones overflow."""
_TINY = 1e-300
_TERMS = 20_000


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds and its interval; of one seed there is none (``low`` and ``high`` are None)."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.high is None else self.high - self.mean

    @property
    def without_spread(self) -> bool:
        """Whether several seeds came to the same number: that says nothing about how others would spread."""
        return self.high is not None and self.high - self.mean <= 5e-13 * abs(self.mean)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of zero, else 0; 0 without an interval or a spread."""
        if self.low is None or self.high is None or self.without_spread:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def in_reach(value: float | None) -> float | None:
    """``value`` where it can be reckoned with; None of one whose square would overflow, and of None."""
    return value if value is not None and abs(value) < LARGEST else None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of ``values``, of which there must be one at least.

    The interval is mean ± t s / √n, with s of n - 1 degrees of freedom.
    """
    n = len(values)
    mean = fmean(values)
    if n == 1:
        return Estimate(mean, None, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * deviation / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate | None:
    """The mean of ``values[seed] - baseline[seed]`` over the seeds that both have; None without any."""
    common = sorted(values.keys() & baseline.keys())
    if not common:
        return None
    return estimate([values[seed] - baseline[seed] for seed in common])


@lru_cache(maxsize=1024)
def t_quantile(p: float, freedom: int) -> float:
    """The value that Student's t with ``freedom`` degrees of freedom stays below with probability ``p``."""
    if not 0 < p < 1 or freedom < 1:
        raise ValueError(f"t_quantile({p}, {freedom}): p lies in (0, 1), the degrees of freedom from 1 on")
    if p < 0.5:
        return -t_quantile(1 - p, freedom)
    if p == 0.5:
        return 0.0
    low, high = 0.0, 1.0
    while _falls_short(high, p, freedom):
        low, high = high, 2 * high
    # Bisection to the last bit: 60 evaluations of a fast function, and no step that could run away.
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _falls_short(middle, p, freedom) else (low, middle)
    return high


def _falls_short(t: float, p: float, freedom: int) -> bool:
    """Whether P(T < t) < p, for t >= 0, by the smaller of its two parts: the larger would round it away."""
    square = t * t
    if p < 0.75:
        return 0.5 * beta_share(square / (freedom + square), 0.5, freedom / 2) < p - 0.5
    return 0.5 * beta_share(freedom / (freedom + square), freedom / 2, 0.5) > 1 - p


def beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # beyond, the fraction of the other tail converges faster
        return 1 - beta_share(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) / a / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction 1 + d1/(1 + d2/(1 + …)) of the incomplete beta function, by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, _TERMS):
        m = term // 2
        if term % 2 == 0:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + step * d or _TINY)
        c = 1 + step / c or _TINY
        value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value
