"""The tables of a report: estimates with a column a system, contracts by number, what is not scored or not tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..attacks.registry import ATTACKS
from ..guards.registry import GUARDS
from ..records import ORIGINAL, Estimate
from .read import Absent, Contents
from .words import ASKING, ATTACK_WORDS, family_of_attack, metric_name, set_name, set_order

NAMED: Final = 4
"""How many prompt sets a line of what is not scored names; more are counted."""


class Row(NamedTuple):
    """One metric of a prompt set under one contract. contract: its number, from 1. cells: an estimate a system.

    none: the systems whose cell is empty because no image was refused or broken, though their images were judged.
    """

    metric: str
    contract: int
    cells: list[Estimate | None]
    none: frozenset[str] = frozenset()


class Section(NamedTuple):
    """The rows of a prompt set."""

    scenario: str
    rows: list[Row]


class Table(NamedTuple):
    """Estimates without an attack. systems: the columns' names. contracts: of all estimates, in order of number."""

    systems: list[str]
    sections: list[Section]
    contracts: list[str]


class Gap(NamedTuple):
    """Something without a number: what, and why or what it is."""

    name: str
    words: str


def table(contents: Contents) -> Table:
    """Estimates by prompt set, a column a system. Those of another contract never share a row."""
    systems = [system.name for system in contents.systems]
    contracts = list(dict.fromkeys(e.contract for e in _in_order(contents)))
    plain = [e for e in contents.estimates if e.attack is None]
    asking = {e.scenario for e in plain if e.metric == "dsr"}
    names = sorted({e.scenario for e in plain}, key=lambda name: (name not in asking, set_order(name)))
    sections = []
    for name in names:
        here = [e for e in plain if e.scenario == name]
        keys = dict.fromkeys((e.metric, e.contract) for e in here)
        rows = [_row(here, systems, metric, contract, contracts) for metric, contract in keys]
        sections.append(Section(name, rows))
    return Table(systems, sections, contracts)


def _in_order(contents: Contents) -> list[Estimate]:
    """Estimates with those of the page's contract first, so that it is number 1."""
    return sorted(contents.estimates, key=lambda e: e.contract != contents.contract)


def _row(here: Sequence[Estimate], systems: Sequence[str], metric: str, contract: str, contracts: list[str]) -> Row:
    mine = {e.system: e for e in here if (e.metric, e.contract) == (metric, contract)}
    judged = {e.system for e in here if e.contract == contract and e.metric in ("dsr", "detected")}
    free = frozenset(judged - set(mine)) if metric in ("refused", "broken") else frozenset()
    return Row(metric, contracts.index(contract) + 1, [mine.get(name) for name in systems], free)


def gaps(entries: Sequence[Absent]) -> list[Gap]:
    """What is absent, in few lines: what has the same metric, systems and reason stands in one, by prompt set.

    The prompt sets of an attack stand together too.
    """
    systems: dict[Absent, list[str]] = {}
    for entry in entries:
        systems.setdefault(entry._replace(system=""), []).append(entry.system)
    lines: dict[tuple[str, str, str], list[str]] = {}
    for entry, names in systems.items():
        what = metric_name(entry.metric).partition(":")[0]
        if entry.attack is not None:
            what = f"{entry.attack} ({entry.preset} budget)" + ("" if entry.metric == "dsr" else f", {what}")
        key = (what, ", ".join(dict.fromkeys(names)), entry.reason)
        lines.setdefault(key, []).append(set_name(entry.scenario).lower())
    return [
        Gap(f"{what}, on {_places(list(dict.fromkeys(places)))} ({names})", reason)
        for (what, names, reason), places in lines.items()
    ]


def _places(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} prompt sets"


def blind_spots(contents: Contents) -> list[Gap]:
    """Attacks and prompt sets that no estimate of an edited or guarded system names, and searches that see no guard."""
    return [*_untested_attacks(contents), *_untested_sets(contents), *_unaware_alone(contents)]


def _others(contents: Contents) -> list[str]:
    return [system.name for system in contents.systems if system.name != ORIGINAL]


def _untested_attacks(contents: Contents) -> list[Gap]:
    met = {(e.system, family_of_attack(e.attack)) for e in contents.estimates if e.attack is not None}
    names = _others(contents)
    found = []
    for family in dict.fromkeys(family_of_attack(name) for name in ATTACKS.names() if name != "direct"):
        lacking = [name for name in names if (name, family) not in met]
        if names and not lacking:
            continue
        words = [ATTACK_WORDS[family]] if family in ATTACK_WORDS else []
        words += [f"not on {', '.join(lacking)}"] if len(lacking) < len(names) else []
        reasons = (a.reason for a in contents.absent if a.attack is not None and a.system in lacking
                   and family_of_attack(a.attack) == family)  # fmt: skip
        words += [reason] if (reason := next(reasons, None)) is not None else []
        found.append(Gap(family, "; ".join(words) or "not run"))
    return found


def _untested_sets(contents: Contents) -> list[Gap]:
    """Prompt sets without a number for the main system: the usual ones, and those that the run gives a reason for."""
    main = contents.main.name if contents.main is not None else None
    plain = {e.scenario for e in contents.estimates if e.system == main and e.attack is None}
    reasons = {a.scenario: a.reason for a in reversed(contents.absent) if a.attack is None and a.system == main}
    names = sorted({*ASKING, "keep", *reasons} - plain, key=set_order)
    return [Gap(set_name(name), reasons.get(name, "not evaluated in this run")) for name in names]


def _unaware_alone(contents: Contents) -> list[Gap]:
    """Systems that no search saw the guards of, those of which no search can, and guards that an aware one saw not."""
    aware = {e.system for e in contents.estimates if e.search == "aware"}
    guarded = [system for system in contents.systems if system.guards]
    able = [system.name for system in guarded if any(_seen(guard) != "nothing" for guard in system.guards)]
    found = []
    if blind := [name for name in able if name not in aware]:
        found.append(f"white-box searches that see the guard and work around it; not on {', '.join(blind)}")
    if never := [system.name for system in guarded if system.name not in able]:
        found.append(f"no search here can see the guards of {', '.join(never)}")
    found += [
        f"on {system.name} they see {hidden}"
        for system in guarded
        if system.name in aware and (hidden := unseen_words(system.guards))
    ]
    return [Gap("Attacks aware of the guard", words) for words in found]


def unseen_words(guards: Sequence[str]) -> str:
    """What an aware search does not see of some guards: "nothing of sld, a part of ce-sdwv"; "" where it sees all."""
    words = {"nothing": "nothing of", "part": "a part of"}
    return ", ".join(f"{words[seen]} {name}" for name in guards if (seen := _seen(name)) in words)


def _seen(guard: str) -> str:
    """How much of a guard an aware search sees. A page may be of a guard that is no longer there."""
    return GUARDS.get(guard).seen if guard in GUARDS.names() else "nothing"
