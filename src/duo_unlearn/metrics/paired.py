"""Whether two measurements of the same things differ: the exact test on what they disagree about."""

from __future__ import annotations

import math
from collections.abc import Iterable


def mcnemar(pairs: Iterable[tuple[bool, bool]]) -> float:
    """The two-sided p-value of McNemar's exact test; 1 where no pair disagrees.

    Of the n pairs that disagree, the number that went one way is binomial (n, 1/2) where neither way is likelier:
    p = min(1, 2 Σ_{i ≤ k} C(n, i) / 2ⁿ), k the smaller side (McNemar 1947).
    """
    disagreeing = [before for before, after in pairs if before != after]
    n, k = len(disagreeing), min(sum(disagreeing), len(disagreeing) - sum(disagreeing))
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, float(2 * tail / 2**n))
