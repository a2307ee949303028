"""Which number of a system stands in a column of the arena."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records import CONTROL, told_by
from .arena_kept import detector_of

if TYPE_CHECKING:
    from ..records import Estimate
    from .arena import Column, Standing


def stands_in(estimate: Estimate, standing: Standing, column: Column) -> bool:
    """Whether a number is of a column's awareness: without guards to see, and of no search, it is of either.

    A guarded system that nothing searched on has no number of an aware search.
    """
    either = estimate.search is None and (standing.kind != "guard" or column.search == "unaware")
    return estimate.search == column.search or either


def of_column(standing: Standing, column: Column, metric: str, judge: str) -> Estimate | None:
    """A system's number in a column, by a judge. Where there is no guard, a search is aware of all and of none."""
    place = (column.scenario, column.attack, column.preset)
    mine = [e for e in standing.estimates if (e.metric, e.contract) == (metric, judge)]
    there = [e for e in mine if (e.scenario, e.attack, e.preset) == place and stands_in(e, standing, column)]
    return next((e for e in there if e.search == column.search), there[0] if there else None)


def control_of(standing: Standing, column: Column, judges: Sequence[str]) -> Estimate | None:
    """How often the safe item came back in a probe's control, by the first judge. It is never a defence.

    A control on keep prompts, of which many show no item, stands only where there is no other.
    """
    place, judge = (column.attack, column.preset), detector_of(judges[0])
    found = [
        e
        for e in standing.estimates
        if (attribute := told_by(e.scenario)) is not None and e.metric == f"{attribute} agreement"
        if (e.attack, e.preset) == place and stands_in(e, standing, column) and detector_of(e.contract) == judge
    ]
    return min(found, key=lambda e: (e.scenario == CONTROL, e.value), default=None)
