"""The arena's tables as Markdown, for benchmarks/arena.py."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from arena_entries import is_again

from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.records import CONTROL, Estimate
from duo_unlearn.report.arena import Column, Standing, columns, cost_words
from duo_unlearn.report.arena_columns import control_of, of_column
from duo_unlearn.report.arena_kept import preservation, prior_preservation
from duo_unlearn.report.arena_unknown import bounds_of, unknown_of
from duo_unlearn.report.arena_worst import worst_words
from duo_unlearn.runs.results import WORST

WORDINGS: Final = (
    "direct", "synonym", "description", "indirect", "figurative", "misspelt", "german", "spanish", "long",
)  # fmt: skip
"""Prompt sets that ask for the concept in other words; the short table has the worst of them."""
ASKED: Final = {
    "nobody asked": Column("implicit"),
    "two figures": Column("two-figures"),
    "on a wall": Column("on-a-wall"),
    "in a stone": Column("in-a-stone"),
}
"""The other columns of the short table of what was asked."""
ATTACKED: Final = {
    "Ring-A-Bell": Column("direct", "ring-a-bell", "quick", "unaware"),
    "Ring-A-Bell, published budget": Column("direct", "ring-a-bell", "paper", "unaware"),
    "inversion": Column("direct", "concept-inversion", "quick", "unaware"),
    "inversion, published budget": Column("direct", "concept-inversion", "paper", "unaware"),
    "soft prompt": Column("direct", "soft-prompt", "quick", "unaware"),
    "P4D": Column("direct", "p4d", "quick", "unaware"),
    "random prefixes": Column("direct", "random-prefix", "quick", "unaware"),
    "UnlearnDiffAtk": Column("direct", "unlearndiffatk", "quick", "unaware"),
    "UnlearnDiffAtk, published budget": Column("direct", "unlearndiffatk", "paper", "unaware"),
    "picture, its prompt": Column("direct", "image-to-image", "quick", "unaware"),
    "at 0.3": Column("direct", "image-to-image-30", "quick", "unaware"),
    "picture, no words": Column("direct", "image-to-image-empty", "quick", "unaware"),
    "at 0.3, no words": Column("direct", "image-to-image-empty-30", "quick", "unaware"),
    "inpainting": Column("direct", "inpainting", "quick", "unaware"),
    "completion": Column("direct", "completion", "quick", "unaware"),
    "TINA": Column("direct", "tina", "quick", "unaware"),
    "worst case": Column("direct", WORST, "quick", "unaware"),
}
"""The columns of the short table of attacks, unaware of guards; those that no system has are left out."""
MADE_AGAIN: Final = "†"
"""Stands behind a number of edits that were made again: they are of other weights than the rest of their row."""
OF_ALL: Final = "of all prompts"
"""What stands beside a worst case: from where unknown prompts count as opened to where they count as defended."""
NONE: Final = "–"
"""Stands where there is no number."""
COSTS: Final = (
    "what stays, by what suffers most", "prior preservation", "keep: item", "worst neighbour: item", "reads", "level",
    "cost",
)  # fmt: skip
"""The columns of the table of costs."""


def worst_lines(standings: Sequence[Standing], columns: Sequence[Column]) -> list[str]:
    """What each worst case is of, wrapped as the docs are."""
    return [textwrap.fill(line, 100, break_on_hyphens=False) for line in worst_words(standings, columns)]


def short(standings: Sequence[Standing], judges: Sequence[str]) -> list[str]:
    """DSR by the judge that heads, a row a system: a table of what was asked, and one of attacks."""
    wordings = [Column(name) for name in WORDINGS]
    asked = [*wordings, *ASKED.values()]
    first = [["worst of nine wordings", *ASKED, "most broken", "keep: item", "worst neighbour"]]
    for s in standings:
        found = [e for place in wordings if (e := of_column(s, place, "dsr", judges[0])) is not None]
        mine = agreements(s, judges)
        keep = mine.pop("keep", None)
        defended = [_bounds(of_column(s, place, "dsr", judges[0])) for place in ASKED.values()]
        stays = [_bounds(keep), _lowest(mine.values())]
        first.append([s.system, _lowest(found), *defended, _broken(s, asked, judges), *stays])
    there = {
        title: place
        for title, place in ATTACKED.items()
        if any(of_column(s, place, "dsr", judges[0]) for s in standings)
    }
    attacks = [place for place in there.values() if place.attack != WORST]  # what is broken there are prompts
    second = [[*(head for title, place in there.items() for head in _heads(title, place)), "most broken"]]
    for s in standings:
        cells = [cell for place in there.values() for cell in _cells(s, place, judges)]
        if any(cell != NONE for cell in cells):
            second.append([s.system, *cells, _broken(s, attacks, judges)])
    return [_markdown(first), *([_markdown(second)] if there else [])]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in others)])


def _lowest(estimates: Iterable[Estimate]) -> str:
    """The lowest of several prompt sets' numbers, and which it is."""
    lowest = min(estimates, key=lambda e: e.value, default=None)
    return NONE if lowest is None else f"{_bounds(lowest)} {lowest.scenario}"


def _broken(standing: Standing, places: Iterable[Column], judges: Sequence[str]) -> str:
    """The largest share of broken pictures in any of some columns."""
    found = (of_column(standing, place, "broken", judges[0]) for place in places)
    return f"{100 * max((e.value for e in found if e is not None), default=0.0):.0f}"


def _heads(title: str, place: Column) -> list[str]:
    """The titles of an attack's columns: a worst case has one more."""
    return [title, f"{title}, {OF_ALL}"] if place.attack == WORST else [title]


def _cells(standing: Standing, place: Column, judges: Sequence[str]) -> list[str]:
    """A system's cells under an attack. Beside a worst case stands what it is of all prompts, whatever is unknown."""
    dsr, broken = (of_column(standing, place, metric, judges[0]) for metric in ("dsr", "broken"))
    if place.attack != WORST:
        return [_with_control(standing, place, judges)]
    if dsr is None:
        return [NONE, NONE]
    of = f" of {dsr.n}" if unknown_of(dsr, broken).lacking else ""
    return [_bounds(dsr) + of, str(bounds_of(dsr, broken))]


def _with_control(standing: Standing, place: Column, judges: Sequence[str]) -> str:
    """The DSR, and behind a colon how often a safe item comes back when the same is done to it, where that was done.

    A control on keep prompts, many of which show no item, stands in brackets until there is one of items.
    A search that asks judge A ends at the first picture in which A sees the concept, so A's number stands there too.
    """
    control = control_of(standing, place, judges)
    found = of_column(standing, place, "dsr", judges[0])
    words = _bounds(found) + (MADE_AGAIN if found is not None and is_again(standing, found) else "")
    if place.attack in ATTACKS.names() and ATTACKS.get(place.attack).asks_detector:
        words = ", ".join([words, *_others(standing, place, judges)])
    if control is None or words == NONE:
        return words
    told = f"{100 * control.value:.0f}"
    told = f"({told})" if control.scenario == CONTROL else told
    return f"{words} : {told}" + (MADE_AGAIN if is_again(standing, control) else "")


def _others(standing: Standing, place: Column, judges: Sequence[str]) -> list[str]:
    """What the other judges say: judge A, whom searches ask."""
    found = (of_column(standing, place, "dsr", judge) for judge in judges[1:])
    return [f"A {100 * e.value:.0f}" for e in found if e is not None]


def _bounds(e: Estimate | None) -> str:
    return NONE if e is None else f"{100 * e.value:.0f} [{100 * e.low:.0f}, {100 * e.high:.0f}]"


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
    return _markdown(
        [[p.title for p in places], *([s.system, *(cell(s, p, judges) for p in places)] for s in standings)]
    )


def cell(standing: Standing, place: Column, judges: Sequence[str]) -> str:
    """The DSR by the judge that heads, its interval and n, what the others say, and what is broken."""
    found = of_column(standing, place, "dsr", judges[0])
    if found is None:
        return NONE
    broken = of_column(standing, place, "broken", judges[0])
    words = [f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}] n {found.n}"]
    words += _others(standing, place, judges)
    words += [f"broken {100 * broken.value:.0f}"] if broken is not None else []
    if place.attack == WORST and unknown_of(found, broken).lacking:
        words.append(f"{OF_ALL} {bounds_of(found, broken)}")
    return ", ".join(words) + (MADE_AGAIN if is_again(standing, found) else "")


def costs(standings: Sequence[Standing], judges: Sequence[str]) -> str:
    """What each system keeps, reads and costs."""
    rows: list[Sequence[str]] = [COSTS]
    for standing in standings:
        kept, mine = preservation(standing, judges), agreements(standing, judges)
        whole = f"{100 * kept.value:.1f} [{100 * kept.low:.1f}, {100 * kept.high:.1f}] n {kept.n}" if kept else NONE
        prior, keep = prior_preservation(standing), mine.pop("keep", None)
        worst = min(mine.values(), key=lambda e: e.value, default=None)
        words = [f"{prior.value:.3f} [{prior.low:.3f}, {prior.high:.3f}]" if prior else NONE]
        words += [f"{100 * keep.value:.0f} n {keep.n}" if keep else NONE]
        words += [f"{worst.scenario} {100 * worst.value:.0f} n {worst.n}" if worst else NONE]
        rows.append([standing.system, whole, *words, standing.reads, standing.level, cost_words(standing.cost)])
    return _markdown(rows)


def agreements(standing: Standing, judges: Sequence[str]) -> dict[str, Estimate]:
    """Item agreement by the judge that heads, by prompt set, without attack."""
    judge = judges[0].partition("[")[0]
    return {
        e.scenario: e
        for e in standing.estimates
        if e.metric == "item agreement" and e.attack is None and e.contract.startswith(judge)
    }
