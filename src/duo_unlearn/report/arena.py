"""The arena's page: every system in one figure and one table, with what it reads, where it acts and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from ..interval import wilson
from ..records import Estimate, Kind
from ..storage.files import write_bytes, write_json, write_text
from .arena_figure import Mark, Panel, picture, plot
from .page import environment
from .words import attack_order, set_name, set_order

TEMPLATE: Final = "arena.html.j2"


class Cost(NamedTuple):
    """What a system costs; None where it is not known.

    seconds: of making its edits, on the run's machine. passes: rows through the denoiser for that. changed: how many
    weights its edits change. image: the time of an image, as a multiple of the original's in the same run.
    """

    seconds: float | None = None
    passes: int | None = None
    changed: int | None = None
    image: float | None = None


class Standing(NamedTuple):
    """A system in the arena. reads: what its erasers were given; level: where it acts; estimates: under every judge."""

    system: str
    kind: Kind
    reads: str
    level: str
    cost: Cost
    estimates: list[Estimate]


class Share(NamedTuple):
    """A share with its 95 % interval and n."""

    value: float
    low: float
    high: float
    n: int


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


def write_arena(folder: Path, concept: str, standings: Sequence[Standing], judges: Sequence[str], machine: str) -> Path:
    """Write arena.html, arena.json, arena.svg and arena.png; gives the page. judges: contracts; the first one heads.

    The same numbers give the same bytes.
    """
    described = [
        {**s._asdict(), "cost": s.cost._asdict(), "estimates": [e.as_json() for e in s.estimates]} for s in standings
    ]
    head = {"version": 1, "concept": concept, "judges": list(judges), "machine": machine}
    write_json(folder / "arena.json", {**head, "systems": described})
    places, kept = columns(standings), [preservation(s, judges) for s in standings]
    panels = _panels(standings, places, kept, judges)
    drawn = plot(panels)
    values = {
        **head, "figure": {"svg": Markup(drawn.svg), "caption": drawn.caption} if panels else None,
        "columns": places, "rows": [_row(i, s, places, kept[i], judges) for i, s in enumerate(standings)],
    }  # fmt: skip
    write_text(folder / "arena.html", environment().get_template(TEMPLATE).render(values).lstrip())
    for suffix in ("svg", "png"):
        write_bytes(folder / f"arena.{suffix}", picture(panels, suffix))
    return folder / "arena.html"


def _row(
    number: int, standing: Standing, places: Sequence[Column], kept: Share | None, judges: Sequence[str]
) -> dict[str, Any]:
    """A row of the table: the headline judge's number in each column, and beside it the others' and broken pictures."""
    cells = []
    for column in places:
        others = [e.value for judge in judges[1:] if (e := of_column(standing, column, "dsr", judge)) is not None]
        broken = of_column(standing, column, "broken", judges[0])
        cells.append({"dsr": of_column(standing, column, "dsr", judges[0]), "others": others, "broken": broken})
    return {"number": number, "standing": standing, "cells": cells, "kept": kept, "cost": cost_words(standing.cost)}


def _panels(
    standings: Sequence[Standing], places: Sequence[Column], kept: Sequence[Share | None], judges: Sequence[str]
) -> list[Panel]:
    """A panel a column: each system's preservation and DSR. Without what must stay there is nothing to draw."""
    panels = []
    for column in places:
        marks = []
        for i, s in enumerate(standings):
            dsr, here = of_column(s, column, "dsr", judges[0]), kept[i]
            if dsr is not None and here is not None:
                marks.append(Mark(i, s.system, s.kind, here[:3], (dsr.value, dsr.low, dsr.high)))
        if marks:
            panels.append(Panel(column.title, marks))
    return panels


def columns(standings: Sequence[Standing]) -> list[Column]:
    """Prompt sets that ask for the concept, then attacks, the worst case last; those that some system has."""
    found = {
        Column(e.scenario, e.attack, e.preset, e.search) for s in standings for e in s.estimates if e.metric == "dsr"
    }

    def order(column: Column) -> tuple[Any, ...]:
        return attack_order(column.attack), set_order(column.scenario), str(column.preset), str(column.search)

    return sorted(found, key=order)


def of_column(standing: Standing, column: Column, metric: str, judge: str) -> Estimate | None:
    """A system's number in a column, by a judge."""
    place = (column.scenario, column.attack, column.preset, column.search)
    for e in standing.estimates:
        if (e.metric, e.contract) == (metric, judge) and (e.scenario, e.attack, e.preset, e.search) == place:
            return e
    return None


def preservation(standing: Standing, judges: Sequence[str]) -> Share | None:
    """The share of keep and neighbour pictures that show the item they ask for, by the first judge; all together."""
    readers = [_detector(judge) for judge in judges[:1]]
    agreements = [e for e in standing.estimates if e.metric == "item agreement" and e.attack is None]
    asked = [e for e in agreements if _detector(e.contract) in readers]
    if not asked:
        return None
    hits, n = sum(round(e.value * e.n) for e in asked), sum(e.n for e in asked)
    return Share(hits / n, *wilson(hits, n), n)


def _detector(contract: str) -> str:
    """The detector of a contract, without its labels and version."""
    return contract.partition("[")[0].partition("@")[0]


def cost_words(cost: Cost) -> str:
    """A cost in words, e.g. "170 s, 12,000 passes, 1.2 M weights, ×1.5 an image"."""
    words = [] if cost.seconds is None else [f"{cost.seconds:.3g} s"]
    words += [] if cost.passes is None else [f"{cost.passes:,} passes"]
    words += [] if cost.changed is None else [f"{cost.changed / 1e6:.2g} M weights"]
    words += [] if cost.image is None else [f"×{cost.image:.2g} an image"]
    return ", ".join(words) or "–"
