"""95 % intervals of what was measured: Wilson for shares, the normal approximation for means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """From low to high, both included."""

    low: float
    high: float


class MeanInterval(NamedTuple):
    """A mean and its interval."""

    mean: float
    low: float
    high: float


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The interval of a share (Wilson 1927, without continuity correction).

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), p = successes / n. It stays within [0, 1], and 0 of n or n of n
    still have a width. ValueError: n is 0 (nothing was scored, so there is no share), or successes are not in 0..n.
    """
    if n <= 0:
        raise ValueError(f"a share of nothing has no interval (n = {n})")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    z = _z(confidence)
    p = successes / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are exact at 0 and n; rounding would leave them a hair outside.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return Interval(low, high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> MeanInterval:
    """A mean with mean ± z s/√n, s the sample's standard deviation. ValueError: fewer than two values."""
    if len(values) < 2:
        raise ValueError(f"a mean's interval needs two values or more, got {len(values)}")
    mean = statistics.fmean(values)
    spread = _z(confidence) * statistics.stdev(values, mean) / math.sqrt(len(values))
    return MeanInterval(mean, mean - spread, mean + spread)
