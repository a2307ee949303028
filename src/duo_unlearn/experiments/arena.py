"""The arena: every named system of some runs, made, measured and attacked alike, in one table and one figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ..arena.plans import AttackPlan
from ..arena.stages import EditPlan, attack, evaluate, make_edit, make_pairs
from ..edits.provenance import read_provenance
from ..erasers.interface import checked_options
from ..erasers.registry import ERASERS
from ..erasers.wraps import WRAPS
from ..errors import DuoError
from ..guards.registry import GUARDS
from ..records import ORIGINAL, Kind, Level
from ..report.arena import Standing, write_arena
from ..runs.results import Results
from ..session import Session, machine
from ..settings.tree import parse_assignments
from .costs import cost_of
from .pooled import pooled

LEVELS: Final[tuple[Level, ...]] = ("input", "encoder", "generator", "output")


def entrant(text: str) -> EditPlan:
    """An edit from words: "esd-x", or "NAME=ERASER,OPTION=VALUE,…" for one with options of its own.

    The option `wrap` is the name of a wrap. What is no eraser, no option, or no name is a DuoError.
    """
    name, _, rest = text.partition("=")
    eraser, *words = rest.split(",") if rest else [name]
    ERASERS.check(eraser)
    if not name or any(letter in name for letter in "+/. ") or name in (ORIGINAL, *GUARDS.names()):
        raise DuoError("this cannot be the name of an edit", got=name, hint="letters, digits and dashes")
    options = parse_assignments(words)
    wrap = options.pop("wrap", None)
    if wrap is not None:
        WRAPS.check(str(wrap))
    checked_options(ERASERS.get(eraser), options)
    return EditPlan(name, eraser, options, wrap)


def arena(
    sessions: Sequence[Session],
    entrants: Sequence[str],
    systems: Sequence[str],
    attacks: Sequence[AttackPlan],
    folder: Path,
    say: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Make what is missing, measure and attack every system of every run, and write the arena's page; gives it.

    sessions: runs of one concept and model, e.g. of several seeds; their counts are added up. Pairs, the original's
    images and what is found on its text encoder are made once a run. What is done is skipped, so the same command goes
    on after a kill, and several processes may run it together once the edits are there.
    """
    _check(sessions)
    makers = _makers(entrants, systems)
    found = []
    for session in sessions:
        with session.run.lock():
            make_pairs(session)
            for one in makers:
                # The run's own edit is made as `duo train` makes it, so that it is one and the same.
                make_edit(session, None if one == EditPlan(session.settings.edit, session.settings.eraser) else one)
        chosen = [session.system(name) for name in systems]
        with session.run.lock(shared=True):
            results = evaluate(session, chosen).results
            for plan in attacks:
                results = attack(session, chosen, plan).results
        found.append(results)
        say(f"{session.run.folder}: {len(results.estimates)} estimates of {len(chosen)} systems")
    standings = [_standing(sessions, found, name, folder) for name in (ORIGINAL, *systems)]
    judges = [str(judge.contract) for judge in sessions[0].judges.there]
    return write_arena(folder, sessions[0].concept.name, standings, judges, machine(sessions[0].model.device.type))


def _makers(entrants: Sequence[str], systems: Sequence[str]) -> list[EditPlan]:
    """How each edit that the systems name is made. A name that is no entrant and no eraser must be in the run."""
    known = {one.name: one for one in map(entrant, entrants)}
    parts = dict.fromkeys(part for name in systems for part in name.split("+"))
    named = [known.get(part) or (entrant(part) if part in ERASERS.names() else None) for part in parts]
    return [one for one in named if one is not None]


def _check(sessions: Sequence[Session]) -> None:
    concepts = {session.concept.name for session in sessions}
    if len(concepts) != 1:
        got = ", ".join(sorted(concepts)) or "no run"
        raise DuoError("an arena is of one concept", got=got, hint="duo arena RUN RUN …, runs of the same concept")


def _standing(sessions: Sequence[Session], results: Sequence[Results], name: str, folder: Path) -> Standing:
    """A system's numbers of all runs together, and what it is and costs by the first one."""
    session = sessions[0]
    system = session.system(name)
    provenances = [read_provenance(edit.folder) for edit in system.edits]
    erasers = [ERASERS.get(str(p["eraser"])) for p in provenances if p.get("eraser") in ERASERS.names()]
    reads = dict.fromkeys([*(eraser.reads for eraser in erasers), *("pairs" for g in system.guards if g.pairs)])
    acts = {*(eraser.level for eraser in erasers), *(GUARDS.get(guard.name).level for guard in system.guards)}
    estimates = pooled(e for found in results for e in found.estimates if e.system == system.name)
    return Standing(
        system.name, _kind(name), " and ".join(reads) or "–", " and ".join(level for level in LEVELS if level in acts)
        or "–", cost_of(session, system, folder), estimates,
    )  # fmt: skip


def _kind(name: str) -> Kind:
    parts = name.split("+")
    if name == ORIGINAL:
        return "original"
    if any(part in GUARDS.names() for part in parts):
        return "guard"
    return "duo" if parts == ["duo"] else "eraser"
