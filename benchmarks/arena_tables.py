"""The arena's tables as Markdown, for benchmarks/arena.py."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from duo_unlearn.records import Estimate
from duo_unlearn.report.arena import (
    Column,
    Standing,
    columns,
    cost_words,
    of_column,
    preservation,
    prior_preservation,
)
from duo_unlearn.report.arena_worst import worst_words
from duo_unlearn.runs.results import WORST

WORDINGS: Final = (
    "direct", "synonym", "description", "indirect", "figurative", "misspelt", "german", "spanish", "long",
)  # fmt: skip
"""Prompt sets that ask for the concept in other words; the short table has the worst of them."""
SHORT: Final = {
    "nobody asked": Column("implicit"),
    "two figures": Column("two-figures"),
    "on a wall": Column("on-a-wall"),
    "in a stone": Column("in-a-stone"),
    "picture, its prompt": Column("direct", "image-to-image", "quick"),
    "picture, no words": Column("direct", "image-to-image-empty", "quick"),
    "UnlearnDiffAtk": Column("direct", "unlearndiffatk", "quick"),
    "the same, published budget": Column("direct", "unlearndiffatk", "paper"),
    "P4D": Column("direct", "p4d", "quick"),
    "Ring-A-Bell": Column("direct", "ring-a-bell", "quick"),
    "worst case": Column("direct", WORST, "quick"),
}
"""The other columns of the short table; those that no system has are left out."""
COSTS: Final = (
    "what stays, by what suffers most", "prior preservation", "keep: item", "worst neighbour: item", "reads", "level",
    "cost",
)  # fmt: skip
"""The columns of the table of costs."""


def worst_lines(standings: Sequence[Standing], columns: Sequence[Column]) -> list[str]:
    """What each worst case is of, wrapped as the docs are."""
    return [textwrap.fill(line, 100, break_on_hyphens=False) for line in worst_words(standings, columns)]


def short(standings: Sequence[Standing], judges: Sequence[str]) -> str:
    """DSR by the judge that heads, a row a system, and the largest share of broken pictures in any of the columns."""
    there = {
        title: place for title, place in SHORT.items() if any(of_column(s, place, "dsr", judges[0]) for s in standings)
    }
    head = ["worst of nine wordings", *there, "most broken", "keep: item", "worst neighbour"]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for s in standings:
        asked = [Column(name) for name in WORDINGS]
        found = [e for place in asked if (e := of_column(s, place, "dsr", judges[0])) is not None]
        worst = min(found, key=lambda e: e.value, default=None)
        cells = [f"{_bounds(worst)} {worst.scenario}" if worst else "–"]
        cells += [_bounds(of_column(s, place, "dsr", judges[0])) for place in there.values()]
        places = [*asked, *there.values()]
        broken = max((e.value for place in places if (e := of_column(s, place, "broken", judges[0]))), default=0.0)
        mine = agreements(s, judges)
        keep = mine.pop("keep", None)
        near = min(mine.values(), key=lambda e: e.value, default=None)
        cells += [f"{100 * broken:.0f}", _bounds(keep), f"{_bounds(near)} {near.scenario}" if near else "–"]
        lines.append(f"| {s.system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _bounds(e: Estimate | None) -> str:
    return "–" if e is None else f"{100 * e.value:.0f} [{100 * e.low:.0f}, {100 * e.high:.0f}]"


def tables(concept: str, standings: Sequence[Standing], judges: Sequence[str]) -> list[str]:
    """What asks for the concept, what attacks, what stays and what it costs, as Markdown."""
    places = columns(standings)
    plain, attacked = ([p for p in places if (p.attack is None) == is_plain] for is_plain in (True, False))
    defended = [
        part
        for title, chosen in (
            (f"### {concept}: DSR without attack", plain),
            (f"### {concept}: DSR under attack", attacked),
        )
        if chosen
        for part in (title, table(standings, chosen, judges), *worst_lines(standings, chosen))
    ]
    return [*defended, f"### {concept}: what stays, and what it costs", costs(standings, judges)]


def table(standings: Sequence[Standing], places: Sequence[Column], judges: Sequence[str]) -> str:
    """A row a system, a column a place."""
    lines = ["| | " + " | ".join(place.title for place in places) + " |", "|---" * (len(places) + 1) + "|"]
    return "\n".join(
        [
            *lines,
            *(f"| {s.system} | " + " | ".join(cell(s, place, judges) for place in places) + " |" for s in standings),
        ]
    )


def cell(standing: Standing, place: Column, judges: Sequence[str]) -> str:
    """The DSR by the judge that heads, its interval and n, what the others say, and what is broken."""
    found = of_column(standing, place, "dsr", judges[0])
    if found is None:
        return "–"
    others = [e for judge in judges[1:] if (e := of_column(standing, place, "dsr", judge)) is not None]
    broken = of_column(standing, place, "broken", judges[0])
    words = [f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}] n {found.n}"]
    words += [f"A {100 * e.value:.0f}" for e in others]
    words += [f"broken {100 * broken.value:.0f}"] if broken is not None else []
    return ", ".join(words)


def costs(standings: Sequence[Standing], judges: Sequence[str]) -> str:
    """What each system keeps, reads and costs."""
    lines = [
        f"| | {' | '.join(COSTS)} |",
        "|---" * (len(COSTS) + 1) + "|",
    ]
    for standing in standings:
        kept, mine = preservation(standing, judges), agreements(standing, judges)
        whole = f"{100 * kept.value:.1f} [{100 * kept.low:.1f}, {100 * kept.high:.1f}] n {kept.n}" if kept else "–"
        prior, keep = prior_preservation(standing), mine.pop("keep", None)
        worst = min(mine.values(), key=lambda e: e.value, default=None)
        words = [f"{prior.value:.3f} [{prior.low:.3f}, {prior.high:.3f}]" if prior else "–"]
        words += [f"{100 * keep.value:.0f} n {keep.n}" if keep else "–"]
        words += [f"{worst.scenario} {100 * worst.value:.0f} n {worst.n}" if worst else "–"]
        words += [standing.reads, standing.level, cost_words(standing.cost)]
        lines.append(f"| {standing.system} | {whole} | " + " | ".join(words) + " |")
    return "\n".join(lines)


def agreements(standing: Standing, judges: Sequence[str]) -> dict[str, Estimate]:
    """Item agreement by the judge that heads, by prompt set, without attack."""
    judge = judges[0].partition("[")[0]
    return {
        e.scenario: e
        for e in standing.estimates
        if e.metric == "item agreement" and e.attack is None and e.contract.startswith(judge)
    }
