"""Which numbers are a guard's own doing: it refuses what their judge sees, so each DSR is 100 % by construction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..system import refusing

if TYPE_CHECKING:
    from .arena import Standing
    from .read import Contents


def certain_words(contents: Contents) -> list[str]:
    """A sentence a system and judge of which that holds."""
    scored = dict.fromkeys((e.system, e.contract) for e in contents.estimates if e.metric == "dsr")
    asked = {system.name: system.asked for system in contents.systems}
    return [
        _sentence(name, contract, guard)
        for name, contract in scored
        if (guard := refusing(asked.get(name, ()), contract)) is not None
    ]


def certain_standings(standings: Iterable[Standing], contract: str) -> list[str]:
    """A sentence a system in the arena of which that holds under the judge that heads it."""
    found = []
    for standing in standings:
        asked = [(one.name, str(one.more["detector"])) for one in standing.parts if one.more.get("detector")]
        if (guard := refusing(asked, contract)) is not None:
            found.append(_sentence(standing.system, contract, guard))
    return found


def _sentence(system: str, contract: str, guard: str) -> str:
    judge = contract.partition("[")[0]
    return (
        f"Each DSR of “{system}” by {judge} is 100\u00a0% by construction, and says nothing of what it knows: "
        f"its guard {guard} refuses every image in which that judge sees the concept."
    )
