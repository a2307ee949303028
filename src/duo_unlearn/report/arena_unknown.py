"""What a number of an arena leaves out: broken pictures and those without a verdict, of which nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..runs.results import WORST
from .arena_columns import of_column

if TYPE_CHECKING:
    from ..records import Estimate
    from .arena import Column, Standing


class Unknown(NamedTuple):
    """How many pictures were asked for, or prompts of a worst case, and of how many of them nothing is known."""

    asked: int
    lacking: int

    @property
    def share(self) -> float:
        """Of those that were asked, 0 to 1."""
        return self.lacking / self.asked if self.asked else 0.0


class Bounds(NamedTuple):
    """The share of all that were asked that is defended: where what is unknown counts as opened, and as defended."""

    low: float
    high: float

    def __str__(self) -> str:
        """In per cent, e.g. "30 to 70"; one number where nothing is unknown."""
        low, high = (f"{100 * value:.0f}" for value in self)
        return low if self.low == self.high else f"{low} to {high}"


def unknown_of(dsr: Estimate | None, broken: Estimate | None) -> Unknown:
    """What a DSR leaves out. broken: the share of broken pictures beside it; None: there was none."""
    # What has no verdict is in neither's n; what is broken is in the second one's alone.
    some = dsr or broken
    unscored = some.unscored if some is not None else 0
    lacking = unscored + (round(broken.value * broken.n) if broken is not None else 0)
    counted = broken or dsr
    return Unknown(unscored + (counted.n if counted is not None else 0), lacking)


def bounds_of(dsr: Estimate, broken: Estimate | None) -> Bounds:
    """Between which shares of all that were asked a DSR lies, whatever is unknown: no interval, and of no sampling."""
    unknown, defended = unknown_of(dsr, broken), round(dsr.value * dsr.n)
    return Bounds(defended / unknown.asked, (defended + unknown.lacking) / unknown.asked)


def unknown_words(standings: Sequence[Standing], columns: Sequence[Column], judges: Sequence[str]) -> list[str]:
    """A sentence a worst case that leaves prompts out: the bounds of each system of which it does."""
    sentences = []
    for column in (one for one in columns if one.attack == WORST):
        bounds = []
        for s in standings:
            dsr, broken = (of_column(s, column, metric, judges[0]) for metric in ("dsr", "broken"))
            if dsr is not None and unknown_of(dsr, broken).lacking:
                bounds.append(f"{s.system} {bounds_of(dsr, broken)}")
        if bounds:
            sentences.append(
                f"{column.title}: a prompt with a broken picture and none that shows the concept is unknown, and in no "
                "DSR. Of all prompts are defended, per cent, as such ones count as opened or as defended: "
                f"{', '.join(bounds)}."
            )
    return sentences
