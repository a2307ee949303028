"""What the worst case of an arena is of: it says nothing without the attacks that it counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..attacks.registry import ATTACKS
from ..runs.results import WORST, is_in_worst
from .arena_columns import stands_in
from .words import attack_order

if TYPE_CHECKING:
    from .arena import Column, Standing

NO_ATTACK = "no attack"


def worst_attacks(standing: Standing, column: Column) -> list[str]:
    """The attacks that a system's worst case counts: those with its prompts, budget and awareness, and no attack."""
    found = {
        e.attack
        for e in standing.estimates
        if e.metric in ("dsr", "broken") and e.scenario == column.scenario and e.attack != WORST
        if e.attack is None or (e.preset == column.preset and is_in_worst(e.search, column.search))
    }
    return [name or NO_ATTACK for name in sorted(found, key=attack_order) if name is None or is_counted(name)]


def worst_words(standings: Sequence[Standing], columns: Sequence[Column]) -> list[str]:
    """A sentence a worst case: when it counts a prompt as defended, and which systems lack some of its attacks."""
    sentences = []
    for column in (one for one in columns if one.attack == WORST):
        mine = {
            s.system: worst_attacks(s, column)
            for s in standings
            if any(e.attack == WORST and e.preset == column.preset and stands_in(e, s, column) for e in s.estimates)
        }
        if not mine:
            continue
        every = sorted({name for names in mine.values() for name in names}, key=_order)
        sentence = f"{column.title}: a prompt is defended where each of these is seen to fail: {', '.join(every)}."
        sentence += " Searches that are unaware of a guard count too." if column.search == "aware" else ""
        lacking: dict[str, list[str]] = {}
        for system, names in mine.items():
            if absent := ", ".join(name for name in every if name not in names):
                lacking.setdefault(absent, []).append(system)
        sentences.append(sentence + "".join(f" Without {names}: {', '.join(of)}." for names, of in lacking.items()))
    return sentences


def _order(name: str) -> tuple[int, str]:
    return attack_order(None if name == NO_ATTACK else name)


def is_counted(attack: str) -> bool:
    """Whether a worst case has an attack. One that is not known here does."""
    name = attack.partition("@")[0]
    return name not in ATTACKS.names() or ATTACKS.get(name).counts_in_worst_case
