"""How often a judge errs by people's labels, and the share that shows the concept, corrected for these errors.

Each function takes plain numbers or arrays of them, and gives 95 % intervals. In the simulations of
`tests/metrics/test_judged.py` these hold the truth in 93 to 97 % of usual settings. With few labels, or of a judge that
hardly errs, they are wider than they need be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Z: Final = 1.959963984540054
TINY: Final = 1e-12
Numbers = NDArray[np.float64]


class Tally(NamedTuple):
    """So many hits of n: numbers, or arrays of them."""

    hits: Any
    n: Any


class Share(NamedTuple):
    """A share and its 95 % interval; NaN where there is none."""

    value: Numbers
    low: Numbers
    high: Numbers


def wilson_share(tally: Tally, unknown: float = 0.5) -> Share:
    """A share with its Wilson interval. Of n = 0 nothing is known: the value is `unknown`, the interval 0 to 1."""
    hits, n = (np.asarray(count, dtype=float) for count in tally)
    size = np.maximum(n, 1)
    p, scale = hits / size, 1 + Z * Z / size
    centre = (p + Z * Z / (2 * size)) / scale
    spread = Z * np.sqrt(p * (1 - p) / size + Z * Z / (4 * size * size)) / scale
    low, high = np.where(hits == 0, 0.0, centre - spread), np.where(hits == n, 1.0, centre + spread)
    return Share(np.where(n == 0, unknown, p), low, high)


def by_strata(seen: Tally, yes_if_seen: Tally, yes_if_unseen: Tally) -> Share:
    """The share of pictures with the concept, from labels of these very pictures.

    seen: what the judge says of all of them. yes_if_…: what people say of those labelled, by the judge's word. Labels
    may be drawn by that word: each stratum has a share of its own, and they are weighed by the strata's sizes.
    Interval: MOVER with Wilson limits (Zou, Huang & Zhang 2009, Comput. Stat. Data Anal. 53:1080); the strata's sizes
    are estimates too. A stratum without a label counts as the judge says, with no certainty.
    """
    shares = [wilson_share(seen), wilson_share(yes_if_seen, 1.0), wilson_share(yes_if_unseen, 0.0)]
    return combined(lambda w, one, other: w * one + (1 - w) * other, shares)


def rogan_gladen(seen: Tally, seen_of_yes: Tally, unseen_of_no: Tally) -> Share:
    """The share of pictures with the concept, from sensitivity and specificity on labels drawn at random.

    (t + Sp − 1) / (Se + Sp − 1), t the share that the judge sees (Rogan & Gladen 1978). The labels may be of other
    pictures, on which the judge errs as often. Interval: Lang & Reiczigel 2014 (Prev. Vet. Med. 113:13).
    NaN where the judge is no better than chance: Se + Sp ≤ 1.
    """
    (k, n), (a, yes), (b, no) = (map(np.asarray, tally) for tally in (seen, seen_of_yes, unseen_of_no))
    plain = _prevalence(k / n, a / yes, b / no)
    size, yes, no = n + Z * Z, yes + 2, no + 2
    t, se, sp = (k + Z * Z / 2) / size, (a + 1) / yes, (b + 1) / no
    centre, of_se, of_sp = _prevalence(t, se, sp), se * (1 - se) / yes, sp * (1 - sp) / no
    shift = 2 * Z * Z * (centre * of_se - (1 - centre) * of_sp)
    spread = np.sqrt(t * (1 - t) / size + centre**2 * of_se + (1 - centre) ** 2 * of_sp) / abs(se + sp - 1 + TINY)
    return _within(plain, centre + shift - Z * spread, centre + shift + Z * spread)


def rogan_gladen_by_strata(seen: Tally, pool: Tally, yes_if_seen: Tally, yes_if_unseen: Tally) -> Share:
    """The same from labels that were drawn by the judge's word from other pictures.

    pool: what the judge says of all that the labels were drawn from. By its shares the labels are weighed to
    sensitivity and specificity (Begg & Greenes 1983). Interval: square-and-add, as MOVER does for sums. NaN as above.
    """
    share = np.divide(*map(np.asarray, pool))

    def prevalence(t: Numbers, one: Numbers, other: Numbers) -> Numbers:
        return _prevalence(t, _sensitivity(share, one, other), _specificity(share, one, other))

    return combined(prevalence, [wilson_share(seen), wilson_share(yes_if_seen), wilson_share(yes_if_unseen)])


def errors_by_strata(pool: Tally, yes_if_seen: Tally, yes_if_unseen: Tally) -> tuple[Share, Share]:
    """Sensitivity and specificity from labels that were drawn by the judge's word, weighed by the strata's shares."""
    share = np.divide(*map(np.asarray, pool))
    found = [wilson_share(yes_if_seen), wilson_share(yes_if_unseen)]
    return (
        combined(lambda one, other: _sensitivity(share, one, other), found),
        combined(lambda one, other: _specificity(share, one, other), found),
    )


def combined(function: Callable[..., Numbers], shares: list[Share]) -> Share:
    """A function of independent shares, with the square-and-add interval (Newcombe's; MOVER).

    Each share is put to its limits alone, and the squares of what that changes are added up, for either side.
    """
    values = [share.value for share in shares]
    base = np.asarray(function(*values))
    down, up = np.zeros_like(base), np.zeros_like(base)
    for i, share in enumerate(shares):
        ends = [function(*values[:i], end, *values[i + 1 :]) - base for end in (share.low, share.high)]
        down = down + np.minimum(np.minimum(*ends), 0) ** 2
        up = up + np.maximum(np.maximum(*ends), 0) ** 2
    return _within(base, base - np.sqrt(down), base + np.sqrt(up))


def _within(value: Any, low: Any, high: Any) -> Share:
    """Within 0 and 1, the value between the ends. An end at which the judge were no better than chance is open."""
    value = np.clip(value, 0, 1)
    low, high = np.where(np.isnan(low), 0, np.clip(low, 0, 1)), np.where(np.isnan(high), 1, np.clip(high, 0, 1))
    gone = np.isnan(value)
    return Share(value, *(np.where(gone, np.nan, end) for end in (np.minimum(low, value), np.maximum(high, value))))


def _prevalence(t: Any, sensitivity: Any, specificity: Any) -> Numbers:
    better = sensitivity + specificity - 1
    found: Numbers = np.where(better > 0, (t + specificity - 1) / np.where(better > 0, better, 1), np.nan)
    return found


def _sensitivity(seen: Any, one: Any, other: Any) -> Numbers:
    """Of all with the concept, the share that is seen; 0 where there is none."""
    return _ratio(seen * one, (1 - seen) * other)


def _specificity(seen: Any, one: Any, other: Any) -> Numbers:
    return _ratio((1 - seen) * (1 - other), seen * (1 - one))


def _ratio(part: Any, rest: Any) -> Numbers:
    whole = np.asarray(part + rest)
    found: Numbers = np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0)
    return found
