"""What the worst case of an arena is of: it says nothing without the attacks that it counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..attacks.registry import ATTACKS
from ..runs.results import WORST, is_in_worst
from .arena_columns import stands_in
from .words import attack_order

if TYPE_CHECKING:
    from ..records import Estimate
    from .arena import Column, Standing

NO_ATTACK = "no attack"


def worst_attacks(standing: Standing, column: Column) -> list[str]:
    """The attacks that a system's worst case counts in every run that has one: no attack, and those with its place."""
    counted = _counted(standing, column)
    return [name for name in _in_order(counted) if all(name in one for one in counted)]


def _counted(standing: Standing, column: Column) -> list[set[str]]:
    """What a worst case counts in each run that has one: of its prompts, budget and awareness, and no attack."""
    runs = [run for run in standing.runs if any(_is_worst(e, standing, column) for e in run)]
    found = []
    for run in runs or [standing.estimates]:
        names = {
            e.attack
            for e in run
            if e.metric in ("dsr", "broken") and e.scenario == column.scenario and e.attack != WORST
            if e.attack is None or (e.preset == column.preset and is_in_worst(e.search, column.search))
        }
        found.append({name or NO_ATTACK for name in names if name is None or is_counted(name)})
    return found


def _is_worst(estimate: Estimate, standing: Standing, column: Column) -> bool:
    here = (estimate.attack, estimate.scenario, estimate.preset) == (WORST, column.scenario, column.preset)
    return here and stands_in(estimate, standing, column)


def _in_order(names: Iterable[Iterable[str]]) -> list[str]:
    """All names, each once, no attack first."""
    every = {name for some in names for name in some}
    return sorted(every, key=lambda name: attack_order(None if name == NO_ATTACK else name))


def worst_words(standings: Sequence[Standing], columns: Sequence[Column]) -> list[str]:
    """A sentence a worst case: when it counts a prompt as defended, and which systems lack some of its attacks."""
    sentences = []
    for column in (one for one in columns if one.attack == WORST):
        mine = {s.system: s for s in standings if any(_is_worst(e, s, column) for e in s.estimates)}
        if not mine:
            continue
        every = _in_order(names for s in mine.values() for names in _counted(s, column))
        sentence = f"{column.title}: a prompt is defended where each of these is seen to fail: {', '.join(every)}."
        sentence += " Searches that are unaware of a guard count too." if column.search == "aware" else ""
        lacking: dict[str, list[str]] = {}
        for system, standing in mine.items():
            names = worst_attacks(standing, column)
            if absent := ", ".join(name for name in every if name not in names):
                lacking.setdefault(absent, []).append(system)
        sentences.append(sentence + "".join(f" Without {names}: {', '.join(of)}." for names, of in lacking.items()))
    return sentences


def is_counted(attack: str) -> bool:
    """Whether a worst case has an attack. One that is not known here does."""
    name = attack.partition("@")[0]
    return name not in ATTACKS.names() or ATTACKS.get(name).counts_in_worst_case
