"""What an arena cannot do, told before anything is made."""

from __future__ import annotations

from collections.abc import Sequence

from ..arena.edits import EditPlan
from ..edits.provenance import edit_names
from ..erasers.registry import ERASERS
from ..errors import DuoError
from ..guards.registry import GUARDS
from ..guards.stacking import check_stack
from ..session import Session
from ..settings.check import check_training
from ..settings.guards import check_asked, check_guard_family
from .compare import settings_of


def check_arena(sessions: Sequence[Session], makers: Sequence[EditPlan], systems: Sequence[str]) -> None:
    """Fail for runs that cannot be counted together, and for a system that some run cannot have."""
    _check_runs(sessions)
    made = {plan.name for plan in makers}
    for session in sessions:
        for plan in makers:
            settings = plan.over(session.settings).model_copy(update={"guard": []})
            check_training(settings, session.family)
            _check_floor(session, plan, makers, systems)
        there = {*made, *edit_names(session.run.edits)}
        for name in systems:
            _check_system(session, name, there)


def _check_floor(session: Session, plan: EditPlan, makers: Sequence[EditPlan], systems: Sequence[str]) -> None:
    """Fail where a system's name would say of an edit and what lies below it what is not so."""
    own = (plan.name, plan.floor) == (session.settings.edit, None)
    floor = session.settings.floor if own else plan.floor
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


def _check_system(session: Session, name: str, there: set[str]) -> None:
    parts = name.split("+")
    guards = [part for part in parts if part in GUARDS.names()]
    if unknown := [part for part in parts if part not in there and part not in guards]:
        hint = f"edits, erasers and entrants: {', '.join(sorted(there))}; guards: {', '.join(GUARDS.names())}"
        raise DuoError("a system has an unknown part", got=f"{unknown[0]!r} in {name}", hint=hint)
    check_stack(guards)
    for guard in guards:
        check_guard_family(guard, session.family)
        check_asked(session.concept, session.settings, guard, session.settings.guards.get(guard, {}), session.family)


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
