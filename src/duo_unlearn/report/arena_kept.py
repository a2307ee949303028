"""What stays of a system in the arena: the axis across of its figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ..interval import wilson

if TYPE_CHECKING:
    from ..records import Estimate
    from .arena import Standing


class Share(NamedTuple):
    """A share, or a mean from 0 to 1, with its 95 % interval and n."""

    value: float
    low: float
    high: float
    n: int


class Kept(NamedTuple):
    """What stays of each system, in order; None where it is not known. title: of the axis. words: what it is of."""

    title: str
    words: str
    shares: list[Share | None]


WHOLE: Final = Share(1.0, 1.0, 1.0, 0)
"""Of the original, which is what others are held against."""


def kept_of(standings: Sequence[Standing], judges: Sequence[str]) -> Kept:
    """By what prompts ask for, where the first judge reads it in some picture, or else by likeness to the original."""
    shares = [preservation(s, judges) for s in standings]
    if any(shares):
        return Kept("preservation, %", "what keep and neighbour prompts ask for", shares)
    alike = [prior_preservation(s) for s in standings]
    if any(alike):
        alike = [WHOLE if s.kind == "original" else share for s, share in zip(standings, alike, strict=True)]
    words = "prior preservation of keep and neighbour pictures, as this judge reads no items"
    return Kept("prior preservation, %", words, alike)


def preservation(standing: Standing, judges: Sequence[str]) -> Share | None:
    """The share of keep and neighbour pictures that show what they ask for, by the first judge; all together.

    Of what prompts name – item, subject, colour – it is the one that suffers most: who keeps a flower in the hand, but
    not the colour of who holds it, preserves nothing.
    """
    asked: dict[str, list[Estimate]] = {}
    for e in standing.estimates:
        if e.metric.endswith(" agreement") and e.attack is None and detector_of(e.contract) == detector_of(judges[0]):
            asked.setdefault(e.metric, []).append(e)
    counts = [(sum(round(e.value * e.n) for e in some), sum(e.n for e in some)) for some in asked.values()]
    shares = [Share(hits / n, *wilson(hits, n), n) for hits, n in counts]
    return min(shares, key=lambda share: share.value, default=None)


def prior_preservation(standing: Standing) -> Share | None:
    """How alike keep and neighbour pictures are to the original's, from the same noise: all prompts together.

    It is 1 − the distance of features, so a picture that shows all it should, and another one than before, lowers it.
    """
    found = [e for e in standing.estimates if e.metric == "prior preservation" and e.attack is None]
    n = sum(e.n for e in found)
    if not n:
        return None
    value = sum(e.value * e.n for e in found) / n
    # An interval ends at 1; its lower side is not cut off.
    half = math.sqrt(sum((e.n * (e.value - e.low)) ** 2 for e in found)) / n
    return Share(value, value - half, min(value + half, 1.0), n)


def detector_of(contract: str) -> str:
    """The detector of a contract, without its labels and version."""
    return contract.partition("[")[0].partition("@")[0]
