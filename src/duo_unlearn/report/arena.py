"""The arena's page: every system in one figure and one table, with what it reads, where it acts and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from markupsafe import Markup

from ..records import CONTROL, Estimate, Kind
from ..runs.results import WORST
from ..storage.files import write_bytes, write_json, write_text
from .arena_columns import control_of, of_column, stands_in
from .arena_figure import Mark, Panel, figures, pictures
from .arena_kept import Share, kept_of, preservation, prior_preservation
from .arena_unknown import bounds_of, unknown_of, unknown_words
from .arena_worst import worst_words
from .certain import certain_standings
from .page import environment
from .read import Absent
from .selection import most_kept
from .tables import gaps, unseen_words
from .words import attack_order, set_name, set_order

TEMPLATE: Final = "arena.html.j2"
CRACKED: Final = 0.1
"""The share of pictures, broken or without a verdict, above which a DSR is marked."""
COST_TITLES: Final = ("Seconds to make", "Thousand passes", "Million weights", "× an image")
"""Columns of what a system costs."""


class Cost(NamedTuple):
    """What a system costs; None where it is not known.

    seconds: of making its edits, on the run's machine. passes: rows through the denoiser for that. changed: how many
    weights its edits change. image: the time of an image, as a multiple of the original's in the same run.
    """

    seconds: float | None = None
    passes: int | None = None
    changed: int | None = None
    image: float | None = None


class Part(NamedTuple):
    """An edit or a guard of a system, as it was made.

    eraser: of an edit, where it is known. settings: its options, all of them; None: an edit of others. more: what else
    decides it. For an edit its wrap, the edits below it and its strength. For a guard the contract of the detector that
    it asks, and `seen`: how much of it an aware search sees.
    """

    kind: Literal["edit", "guard"]
    name: str
    eraser: str | None
    settings: Mapping[str, Any] | None
    more: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For arena.json."""
        eraser = {"eraser": self.eraser} if self.kind == "edit" else {}
        return {"kind": self.kind, "name": self.name, **eraser, "settings": self.settings, **self.more}


class Standing(NamedTuple):
    """A system in the arena. reads: what its erasers were given; level: where it acts; estimates: under every judge.

    parts: its edits and guards, by the first run. runs: the estimates of each run, which `estimates` are pooled from.
    """

    system: str
    kind: Kind
    reads: str
    level: str
    cost: Cost
    estimates: list[Estimate]
    parts: Sequence[Part] = ()
    runs: Sequence[Sequence[Estimate]] = ()

    def as_json(self) -> dict[str, Any]:
        """For arena.json. An estimate of several runs has the value of each beside it."""
        estimates = [
            {**e.as_json(), **({"by_seed": each} if len(each := by_seed(e, self.runs)) > 1 else {})}
            for e in self.estimates
        ]
        own = {"system": self.system, "kind": self.kind, "reads": self.reads, "level": self.level}
        parts = [part.as_json() for part in self.parts]
        return {**own, "parts": parts, "cost": self.cost._asdict(), "estimates": estimates}


class Column(NamedTuple):
    """A column of the table, and a panel of the figure: a prompt set, or an attack with its budget and awareness."""

    scenario: str
    attack: str | None = None
    preset: str | None = None
    search: str | None = None

    @property
    def title(self) -> str:
        """As people read it."""
        if self.attack is None:
            return set_name(self.scenario)
        details = ", ".join(word for word in (self.preset, self.search) if word)
        place = "" if self.scenario == "direct" else f", {set_name(self.scenario).lower()}"
        return f"{self.attack}{place} ({details})" if details else f"{self.attack}{place}"


def write_arena(
    folder: Path,
    concept: str,
    standings: Sequence[Standing],
    judges: Sequence[str],
    machine: str,
    absent: Sequence[Absent] = (),
) -> Path:
    """Write arena.html, arena.json, arena.svg and arena.png; gives the page. judges: contracts; the first one heads.

    absent: what has no number, and why. The same numbers give the same bytes.
    """
    head = {"version": 1, "concept": concept, "judges": list(judges), "machine": machine}
    systems, lacking = [standing.as_json() for standing in standings], [one._asdict() for one in absent]
    write_json(folder / "arena.json", {**head, "systems": systems, "absent": lacking})
    places = columns(standings)
    rows = [_row(i, s, places, preservation(s, judges), judges) for i, s in enumerate(standings)]
    cells = [cell for row in rows for cell in row["cells"] if cell["dsr"]]
    panels = panels_of(standings, places, judges)
    drawn = figures(panels)
    values = {
        **head, "figure": {**drawn._asdict(), "panels": [Markup(svg) for svg in drawn.panels]} if panels else None,
        "columns": places, "rows": rows, "cracked": any(cell["cracked"] for cell in cells),
        "fewest": min((cell["dsr"].n for cell in cells), default=0),
        "most": max((cell["dsr"].n for cell in cells), default=0),
        "seeds": max((len(s.runs) for s in standings), default=1), "alone": any(cell["alone"] for cell in cells),
        "unseen": _unseen(standings),
        "controls": {c.scenario for s in standings for column in places if (c := control_of(s, column, judges))},
        "worst": [
            *certain_standings(standings, judges[0]), *worst_words(standings, places),
            *unknown_words(standings, places, judges),
        ],
        "costs": COST_TITLES, "gaps": gaps(absent),
    }  # fmt: skip
    write_text(folder / "arena.html", environment().get_template(TEMPLATE).render(values).lstrip())
    for suffix, content in pictures(panels, "svg", "png").items():
        write_bytes(folder / f"arena.{suffix}", content)
    return folder / "arena.html"


def _row(
    number: int, standing: Standing, places: Sequence[Column], kept: Share | None, judges: Sequence[str]
) -> dict[str, Any]:
    """A row of the table: the headline judge's number in each column, and beside it what belongs to it."""
    cells = []
    for column in places:
        dsr = of_column(standing, column, "dsr", judges[0])
        others = [of_column(standing, column, "dsr", judge) for judge in judges[1:]]
        broken = of_column(standing, column, "broken", judges[0])
        seeds = by_seed(dsr, standing.runs) if dsr is not None else []
        control = control_of(standing, column, judges)
        cells.append({
            "title": column.title, "dsr": dsr, "others": others, "broken": broken, "seeds": seeds, "control": control,
            "cracked": _is_cracked(standing, column, judges), "asked": unknown_of(dsr, broken).asked,
            "bounds": bounds_of(dsr, broken) if dsr is not None and column.attack == WORST else None,
            "refused": of_column(standing, column, "refused", judges[0]),
            "alone": dsr.seeds if dsr is not None and len(dsr.seeds) < len(standing.runs) else (),
        })  # fmt: skip
    return {
        "number": number, "standing": standing, "cells": cells, "kept": kept, "prior": prior_preservation(standing),
        "cost": cost_words(standing.cost), "costs": cost_cells(standing.cost), "refused": _refused(standing, judges),
    }  # fmt: skip


def panels_of(standings: Sequence[Standing], places: Sequence[Column], judges: Sequence[str]) -> list[Panel]:
    """A panel a column: what stays of each system, and its DSR. Without what must stay there is nothing to draw."""
    kept = kept_of(standings, judges)
    panels = []
    for column in places:
        marks = []
        for i, s in enumerate(standings):
            dsr, here = of_column(s, column, "dsr", judges[0]), kept.shares[i]
            if dsr is None or here is None:
                continue
            control = control_of(s, column, judges)
            # What empty hands are in is no height that the concept would come back to.
            height = control.value if control is not None and control.scenario != CONTROL else None
            bounds = (dsr.value, dsr.low, dsr.high)
            marks.append(Mark(i, s.system, s.kind, here[:3], bounds, height, _is_cracked(s, column, judges)))
        if marks:
            panels.append(Panel(column.title, marks, kept.title, kept.words))
    return panels


def _is_cracked(standing: Standing, column: Column, judges: Sequence[str]) -> bool:
    dsr, broken = (of_column(standing, column, metric, judges[0]) for metric in ("dsr", "broken"))
    return unknown_of(dsr, broken).share > CRACKED


def _refused(standing: Standing, judges: Sequence[str]) -> str | None:
    """How much of what must stay a guard refused, in words; None where it refused nothing, or nothing was asked."""
    found = [e for e in standing.estimates if (e.metric, e.contract) == ("refused", judges[0])]
    if not found or kept_of([standing], judges).shares[0] is None:
        return None
    most = most_kept([e for e in standing.estimates if e.contract == judges[0]], "refused", standing.system)
    if most is None:
        return "nothing of what must stay"
    return f"{100 * most.value:.0f} % under {set_name(most.scenario).lower()}, n = {most.n}: the most of what must stay"


def columns(standings: Sequence[Standing]) -> list[Column]:
    """Prompt sets that ask for the concept, then attacks, the worst case last; those that some system has.

    What searches through guards or past them has a column each way, and systems without guards stand in both.
    """
    told = [(s, e) for s in standings for e in s.estimates if e.metric == "dsr"]
    places = {Column(e.scenario, e.attack, e.preset, e.search) for _, e in told}
    searched = {place for place in places if place.search is not None}

    def is_told(s: Standing, e: Estimate) -> bool:
        """Whether a number of no search stands in a column of one."""
        here = Column(e.scenario, e.attack, e.preset)
        return any(place._replace(search=None) == here and stands_in(e, s, place) for place in searched)

    found = {Column(e.scenario, e.attack, e.preset, e.search) for s, e in told if e.search or not is_told(s, e)}

    def order(column: Column) -> tuple[Any, ...]:
        return attack_order(column.attack), set_order(column.scenario), str(column.preset), str(column.search)

    return sorted(found, key=order)


def by_seed(estimate: Estimate, runs: Sequence[Sequence[Estimate]]) -> list[dict[str, Any]]:
    """Each run's number of an estimate, with its seed: how far they lie apart is in no interval of a pooled share."""
    own = [e for run in runs for e in run if e.of_what == estimate.of_what]
    return [{"seed": seed, "value": e.value, "n": e.n} for e in own for seed in e.seeds]


def _unseen(standings: Sequence[Standing]) -> list[str]:
    """Guards of the systems that an aware search does not see now, or not whole, in words."""
    guards = dict.fromkeys(part.name for s in standings for part in s.parts if part.kind == "guard")
    return [words for guard in guards if (words := unseen_words([guard]))]


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def cost_cells(cost: Cost) -> list[str]:
    """A cost as cells below COST_TITLES; a dash where it is not known."""
    return [
        "–" if cost.seconds is None else f"{cost.seconds:,.{0 if cost.seconds >= 10 else 1}f}",
        "–" if cost.passes is None else f"{cost.passes / 1e3:.3g}",
        "–" if cost.changed is None else f"{cost.changed / 1e6:.2g}",
        "–" if cost.image is None else f"{cost.image:.2g}",
    ]


def cost_words(cost: Cost) -> str:
    """A cost in words, e.g. "170 s, 12,000 passes, 1.2 M weights, ×1.5 an image"."""
    words = [] if cost.seconds is None else [_seconds(cost.seconds)]
    words += [] if cost.passes is None else [f"{cost.passes:,} passes"]
    words += [] if cost.changed is None else [f"{cost.changed / 1e6:.2g} M weights"]
    words += [] if cost.image is None else [f"×{cost.image:.2g} an image"]
    return ", ".join(words) or "–"
