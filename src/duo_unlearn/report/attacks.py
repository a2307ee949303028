"""The red team in a report: rows an attack and column a system, the weakest attack, and pictures of what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..records import CORRECTED, Awareness, Estimate
from ..runs.folder import Run
from ..runs.results import WORST
from .pictures import Grid, grids
from .read import Contents
from .words import attack_order, awareness, set_order

ATTACK_LIMIT: Final = 8
"""Prompts of an attack that are pictured: the first ones."""
REMOVAL: Final = "edit-removal"
"""It shows the original model again, so it is no measure of how weak an edit is."""


_SEARCHES: Final[tuple[Awareness, ...]] = ("unaware", "aware")


class AttackCell(NamedTuple):
    """An attack on one system. refused: the share of attempts that a guard refused; None: nothing was.

    broken: the share of broken pictures; None: there was none. corrected: the DSR by people's labels; None: too few.
    above: the system has no guard, so that its number is the one in the row above, whatever a search sees.
    """

    dsr: Estimate | None
    refused: Estimate | None = None
    broken: Estimate | None = None
    corrected: Estimate | None = None
    above: bool = False


class AttackRow(NamedTuple):
    """One attack under a contract, on every system. attack: None: nothing attacks. contract: its number, from 1."""

    attack: str | None
    search: Awareness | None
    contract: int
    cells: list[AttackCell]


class AttackTable(NamedTuple):
    """The rows of a prompt set under a budget: no attack first, the worst case last."""

    scenario: str
    preset: str | None
    rows: list[AttackRow]


class AttackPictures(NamedTuple):
    """What an attack tried: its grid and how long it took on all systems. seconds: None: not recorded."""

    attack: str
    preset: str
    awareness: str
    seconds: float | None
    grid: Grid


def attack_tables(contents: Contents, contracts: Sequence[str]) -> list[AttackTable]:
    """Every attack that was measured, by prompt set and budget. contracts: in order of their numbers."""
    scores = [e for e in contents.estimates if e.metric == "dsr"]
    places = {(e.scenario, e.preset) for e in scores if e.attack is not None}
    tables = []
    for scenario, preset in sorted(places, key=lambda place: (set_order(place[0]), str(place[1]))):
        attacks = [e for e in scores if e.attack is not None and (e.scenario, e.preset) == (scenario, preset)]
        judges = {e.contract for e in attacks}
        plain = [e for e in scores if e.attack is None and e.scenario == scenario and e.contract in judges]
        keys = {(e.attack, e.contract) for e in (*plain, *attacks)}
        rows = []
        for attack, contract in sorted(keys, key=lambda key: (attack_order(key[0]), contracts.index(key[1]))):
            mine = [e for e in (*plain, *attacks) if (e.attack, e.contract) == (attack, contract)]
            rows += _rows(contents, mine, attack, contracts.index(contract) + 1)
        tables.append(AttackTable(scenario, preset, rows))
    return tables


def _rows(contents: Contents, mine: Sequence[Estimate], attack: str | None, contract: int) -> list[AttackRow]:
    """A row for searches that are unaware of guards and one for aware ones, or one row where that is no question."""
    searches: list[Awareness | None] = [s for s in _SEARCHES if any(e.search == s for e in mine)]
    rows = []
    for i, search in enumerate(searches or [None]):
        cells = []
        for system in contents.systems:
            by_search = {e.search: e for e in mine if e.system == system.name}
            dsr = by_search.get(search) or (by_search.get(None) if i == 0 else None)
            cells.append(AttackCell(dsr, *_apart(contents, dsr), above=dsr is None and None in by_search))
        rows.append(AttackRow(attack, search, contract, cells))
    return rows


def _apart(contents: Contents, dsr: Estimate | None) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """The shares of refusals and of broken pictures among the attempts of a DSR, and the DSR corrected."""
    if dsr is None:
        return None, None, None
    everything = contents.estimates
    return refusals_of(everything, dsr), broken_of(everything, dsr), corrected_of(everything, dsr)


def refusals_of(estimates: Sequence[Estimate], dsr: Estimate) -> Estimate | None:
    """The share of attempts that a guard refused, of the attempts that a DSR is of; None where nothing was refused."""
    return _beside(estimates, dsr, "refused")


def broken_of(estimates: Sequence[Estimate], dsr: Estimate) -> Estimate | None:
    """The share of attempts whose picture is broken, by the judge of a DSR; None where none was."""
    return _beside(estimates, dsr, "broken")


def corrected_of(estimates: Sequence[Estimate], dsr: Estimate) -> Estimate | None:
    """A DSR corrected for the judge's errors by people's labels; None where there are too few."""
    return _beside(estimates, dsr, CORRECTED)


def _beside(estimates: Sequence[Estimate], dsr: Estimate, metric: str) -> Estimate | None:
    place = (*_place(dsr), dsr.contract)
    return next((e for e in estimates if e.metric == metric and (*_place(e), e.contract) == place), None)


def by_others(estimates: Sequence[Estimate], dsr: Estimate) -> list[Estimate]:
    """The same DSR by the other judges."""
    place = _place(dsr)
    return [e for e in estimates if e.metric == "dsr" and _place(e) == place and e.contract != dsr.contract]


def _place(estimate: Estimate) -> tuple[str | None, ...]:
    e = estimate
    return e.system, e.scenario, e.attack, e.preset, e.search


def attack_scores(contents: Contents, system: str) -> list[Estimate]:
    """Every DSR of a system under attack by the page's contract, without the worst case and the removal of edits."""
    return [
        e
        for e in contents.primary
        if e.metric == "dsr" and e.system == system and e.attack not in (None, WORST, REMOVAL)
    ]


def attack_pictures(run: Run, contents: Contents, limit: int = ATTACK_LIMIT) -> list[AttackPictures]:
    """What was tried, an entry an attack, budget and awareness. limit: how many prompts are pictured."""
    attacks = [group for group in contents.groups if group.group.preset is not None]
    entries = []
    for grid, groups in grids(run, contents, attacks, limit):
        group = groups[-1].group
        seconds = [one.seconds for one in groups if one.seconds is not None]
        words = awareness(grid.search)
        entries.append(
            AttackPictures(group.attack_name, str(group.preset), words, sum(seconds) if seconds else None, grid)
        )
    return sorted(entries, key=lambda e: (set_order(e.grid.scenario), e.preset, attack_order(e.attack)))
