"""What an arena cannot do, told before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..arena.edits import EditPlan
from ..edits.provenance import edit_names, hashes_below
from ..erasers.registry import ERASERS
from ..erasers.wraps import whole_name
from ..errors import DuoError
from ..guards.registry import GUARDS
from ..guards.stacking import check_stack
from ..records import Pair
from ..session import Session
from ..settings.check import check_device, check_training
from ..settings.guards import check_asked, check_guard_family
from ..settings.wordless import check_words, known_pairs
from ..system import check_below, check_parts
from .compare import settings_of


def check_arena(sessions: Sequence[Session], makers: Sequence[EditPlan], systems: Sequence[str]) -> None:
    """Fail for runs that cannot be counted together, and for a system that some run cannot have."""
    _check_runs(sessions)
    if not systems:
        raise DuoError("an arena has a system beside the original", got="none", hint="--system duo --system uce …")
    for session in sessions:
        pairs = known_pairs(session.settings)
        for plan in makers:
            _check_edit(session, plan, pairs)
            _check_floor(session, plan, makers, systems)
        for name in systems:
            _check_system(session, name, makers)


def erasers_of(session: Session, say: Callable[[str], None]) -> list[str]:
    """The erasers that a run's model and pairs can have, and the edit that it has; its own with what lies below.

    `say` is told of the others, and why. A machine that cannot train at all is a DuoError.
    """
    settings, found = session.settings, []
    pairs = known_pairs(settings)
    check_device(settings)
    for name in ERASERS.names():
        plan = EditPlan(name, name)
        try:
            _check_edit(session, plan, pairs)
        except DuoError as error:
            say(f"{name}: left out, {error.reason}")
        else:
            found.append(whole_name(name, plan.floor_in(settings)))
    if settings.edit not in ERASERS.names() and session.run.edit(settings.edit).is_dir():
        found.append(whole_name(settings.edit, settings.floor))
    return found


def _check_edit(session: Session, plan: EditPlan, pairs: Sequence[Pair]) -> None:
    """Fail for an edit that the family, the machine or the pairs cannot give."""
    settings = session.settings if plan.is_own(session.settings) else plan.over(session.settings)
    check_training(settings.model_copy(update={"guard": []}), session.family)
    check_words(settings, pairs)


def _check_floor(session: Session, plan: EditPlan, makers: Sequence[EditPlan], systems: Sequence[str]) -> None:
    """Fail where a system's name would say of an edit and what lies below it what is not so."""
    floor = plan.floor_in(session.settings)
    if any(other.name == floor and (other.options or other.eraser != floor) for other in makers):
        hint = f"an entrant of another name; the floor's options: --set erasers.{floor}.…"
        got = f"an entrant of the name {floor}"
        raise DuoError(f"the floor of {plan.name} is made with the run's options", got=got, hint=hint)
    if floor is not None or not ERASERS.get(plan.eraser).on_floor:
        return
    edits = {other.name for other in makers}
    for name in systems:
        before, there, _ = name.partition(f"+{plan.name}")
        if there and (below := [part for part in before.split("+") if part in edits]):
            hint = f"--entrant {plan.name}={plan.eraser},floor={below[-1]}"
            raise DuoError(f"{plan.name} would be made apart from {below[-1]}, and put on it", got=name, hint=hint)


def _check_system(session: Session, name: str, makers: Sequence[EditPlan]) -> None:
    parts = check_parts(name)
    guards = [part for part in parts if part in GUARDS.names()]
    there = {*(plan.name for plan in makers), *edit_names(session.run.edits)}
    if unknown := [part for part in parts if part not in there and part not in guards]:
        hint = f"edits, erasers and entrants: {', '.join(sorted(there))}; guards: {', '.join(GUARDS.names())}"
        raise DuoError("a system has an unknown part", got=f"{unknown[0]!r} in {name}", hint=hint)
    check_stack(guards)
    for number, part in enumerate(parts):
        check_below(part, [] if part in guards else _below(session, part, makers), parts[:number])
    for guard in guards:
        check_guard_family(guard, session.family)
        check_asked(session.concept, session.settings, guard, session.settings.guards.get(guard, {}), session.family)


def _below(session: Session, edit: str, makers: Sequence[EditPlan]) -> list[str]:
    """What an edit lies on: as it will be made, or as it was."""
    for plan in makers:
        if plan.name == edit:
            floor = plan.floor_in(session.settings)
            return [] if floor is None else [floor]
    return list(hashes_below(session.run.edit(edit)))


def _check_runs(sessions: Sequence[Session]) -> None:
    concepts = sorted({session.concept.name for session in sessions})
    if len(concepts) != 1:
        got = ", ".join(concepts) or "no run"
        raise DuoError("an arena is of one concept", got=got, hint="duo arena RUN RUN …, runs of the same concept")
    if len(sessions) == 1:
        return
    seeds = [session.settings.seed for session in sessions]
    if len(set(seeds)) < len(seeds):
        got = f"seeds {', '.join(map(str, seeds))}"
        raise DuoError("runs that are counted together have seeds of their own", got=got, hint="duo erase --seed 1 …")
    kept = {settings_of(session.settings) for session in sessions}
    if len(kept) > 1:
        hint = "the same settings but for the seed; duo compare puts other runs side by side"
        raise DuoError("runs that differ in more than the seed are not counted together", hint=hint)
