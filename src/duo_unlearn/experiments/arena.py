"""The arena: every named system of some runs, made, measured and attacked alike, in one table and one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..arena.edits import EditPlan, make_edit
from ..arena.plans import AttackPlan
from ..arena.stages import attack, evaluate, make_pairs
from ..edits.provenance import read_provenance
from ..erasers.interface import checked_options
from ..erasers.pictures import Origin, origin_of
from ..erasers.registry import ERASERS
from ..erasers.wraps import WRAPS
from ..errors import DuoError
from ..guards.registry import GUARDS
from ..records import CORRECTED, ORIGINAL, Kind, Level
from ..report.arena import Part, Standing, write_arena
from ..report.read import absences
from ..runs.results import EVERY_SYSTEM, Results
from ..session import Session, machine
from ..settings.tree import parse_assignments
from ..system import EditFile, GuardChoice, System
from .arena_check import check_arena
from .costs import cost_of
from .pooled import pooled

LEVELS: Final[tuple[Level, ...]] = ("input", "encoder", "generator", "output")


def entrant(text: str) -> EditPlan:
    """An edit from words: "esd-x", or "NAME=ERASER,OPTION=VALUE,…" for one with options of its own.

    The option `wrap` is the name of a wrap, and `floor` that of an eraser whose edit lies below. What is no eraser, no
    option, or no name is a DuoError.
    """
    name, _, rest = text.partition("=")
    eraser, *words = rest.split(",") if rest else [name]
    ERASERS.check(eraser)
    taken = name in (ORIGINAL, *GUARDS.names()) or (name in ERASERS.names() and name != eraser)
    if not name or taken or any(letter in name for letter in "+/. "):
        raise DuoError(
            "this cannot be the name of an edit",
            got=name,
            hint="letters, digits and dashes; no guard, no other eraser",
        )
    options = parse_assignments(words)
    wrap = options.pop("wrap", None)
    if wrap is not None:
        WRAPS.check(str(wrap))
    floor = options.pop("floor", None)
    if floor is not None:
        ERASERS.check(str(floor))
    checked_options(ERASERS.get(eraser), options)
    return EditPlan(name, eraser, options, wrap, floor)


def arena(
    sessions: Sequence[Session],
    entrants: Sequence[str],
    systems: Sequence[str],
    attacks: Sequence[AttackPlan],
    folder: Path,
    say: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Make what is missing, measure and attack every system of every run, and write the arena's page; gives it.

    sessions: runs that differ by their seed alone; their counts are added up. Pairs, the original's images and what is
    found on its text encoder are made once a run. What is done is skipped, so the same command goes on after a kill,
    and any number of processes may run it together. What cannot be done is told before anything is made.
    """
    names, plans = _without_original(systems), makers(entrants, systems)
    check_arena(sessions, plans, names)
    found = []
    for session in sessions:
        with session.run.lock(shared=True):
            make_pairs(session)
            make_edits(session, plans)
            chosen = [session.system(name) for name in names]
            found.append(evaluate(session, chosen).results)
            for plan in attacks:
                found[-1] = attack(session, chosen, plan).results
        say(f"{session.run.folder}: {len(found[-1].estimates)} estimates of {len(chosen)} systems")
    standings = [_standing(sessions, found, name, folder) for name in (ORIGINAL, *names)]
    judges = [str(judge.contract) for judge in sessions[0].judges.there]
    told = (one for results in found for one in absences(results) if one.system in (ORIGINAL, *names, EVERY_SYSTEM))
    absent = list(dict.fromkeys(one for one in told if one.metric != CORRECTED))
    where = machine(sessions[0].model.device.type)
    return write_arena(folder, sessions[0].concept.name, standings, judges, where, absent)


def _without_original(systems: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for name in systems if name != ORIGINAL))


def make_edits(session: Session, plans: Sequence[EditPlan]) -> None:
    """Make what is missing. What another process is at is left to it, and waited for at the end."""
    left = list(plans)
    for wait in (False, True):
        for one in tuple(left):
            floor = one.floor_in(session.settings)
            with session.run.claim(f"edit.{floor or one.name}", wait=wait) as mine:
                if mine:
                    make_edit(session, None if one.is_own(session.settings) else one)
                    left.remove(one)


def makers(entrants: Sequence[str], systems: Sequence[str]) -> list[EditPlan]:
    """How each edit that the systems name is made. A name that is no entrant and no eraser must be in the run."""
    plans = [entrant(text) for text in entrants]
    parts = dict.fromkeys(part for name in _without_original(systems) for part in name.split("+"))
    for plan in plans:
        if [other.name for other in plans].count(plan.name) > 1:
            raise DuoError("two entrants have one name", got=plan.name, hint="NAME=ERASER,… with a name of its own")
        if plan.name not in parts:
            raise DuoError("no system has this entrant", got=plan.name, hint=f"--system {plan.name}")
    known = {plan.name: plan for plan in plans}
    named = [known.get(part) or (entrant(part) if part in ERASERS.names() else None) for part in parts]
    return [plan for plan in named if plan is not None]


def _standing(sessions: Sequence[Session], results: Sequence[Results], name: str, folder: Path) -> Standing:
    """A system's numbers of all runs together, and what it is and costs by the first one."""
    session = sessions[0]
    system = session.system(name)
    provenances = [read_provenance(edit.folder) for edit in system.edits]
    erasers = [ERASERS.get(str(p["eraser"])) for p in provenances if p.get("eraser") in ERASERS.names()]
    own = origin_of(session.model)
    reads = [*(reads_of(one, own) for one in provenances), *("pairs" for guard in system.guards if guard.pairs)]
    acts = {*(eraser.level for eraser in erasers), *(GUARDS.get(guard.name).level for guard in system.guards)}
    runs = [[e for e in found.estimates if e.system == system.name] for found in results]
    level, given = " and ".join(one for one in LEVELS if one in acts), read_together(reads)
    cost, made = cost_of(session, system, folder), [*map(_edit, system.edits), *map(_guard, system.guards)]
    return Standing(system.name, _kind(system), given or "–", level or "–", cost, pooled(runs), made, runs)


def _edit(edit: EditFile) -> Part:
    """An edit by its provenance: what it does not say, of an edit of others, is left out."""
    provenance = read_provenance(edit.folder)
    known: dict[str, Any] = {name: provenance[name] for name in ("wrap", "on") if name in provenance}
    eraser = str(provenance["eraser"]) if "eraser" in provenance else None
    return Part("edit", edit.name, eraser, provenance.get("settings"), {**known, "strength": edit.strength})


def _guard(guard: GuardChoice) -> Part:
    return Part("guard", guard.name, None, dict(guard.options), {**guard.further, "seen": GUARDS.get(guard.name).seen})


def _kind(system: System) -> Kind:
    if system.guards:
        return "guard"
    if not system.edits:
        return "original"
    return "duo" if [edit.name for edit in system.edits] == ["duo"] else "eraser"


def read_together(reads: Sequence[str]) -> str:
    """What the parts of a system read, each once: a floor's "prompts" are among "images and prompts"."""
    found = list(dict.fromkeys(filter(None, reads)))
    return " and ".join(one for one in found if not any(one in other.split(" and ") for other in found if other != one))


def reads_of(provenance: Mapping[str, Any], own: Origin = "sampled") -> str:
    """What an edit's eraser was given, by its provenance; "" where that does not say.

    own: where the latents come from of an eraser that leaves it to the family.
    """
    if provenance.get("eraser") not in ERASERS.names():
        return ""
    settings = provenance.get("settings") or {}
    reads = set(ERASERS.get(str(provenance["eraser"])).reads.split(" and "))
    # A wrap trains on pictures, whatever its eraser reads; and options bring what an eraser can do without.
    if provenance.get("wrap") or ("latents" in settings and (settings["latents"] or own) == "pairs"):
        reads.add("images")
    if (captions := settings.get("captions")) == "none":
        reads.discard("prompts")
    elif captions is not None:
        reads.add("prompts")
    if reads == {"images"}:
        return "images, no word"
    worded = settings.get("wordings") == "all" and settings.get("form") != "word"  # ESD on its word alone reads none
    return " and ".join(sorted(reads)) + (" in all wordings" if worded else "")
