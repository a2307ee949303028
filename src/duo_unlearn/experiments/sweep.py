"""The paper's figure: how much is defended against how much is preserved, over β or over one edit's strength."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ..arena.edits import make_edit
from ..arena.plans import AttackPlan
from ..arena.sharing import share_originals, share_pairs
from ..arena.stages import ask_original, attack, evaluate, make_pairs
from ..attacks.registry import ATTACKS
from ..edits.compose import write_scaled
from ..edits.files import read_edit
from ..edits.provenance import edit_hash, read_provenance
from ..errors import DuoError
from ..records import Estimate
from ..report.frontier import Kind, Point, frontier_plot
from ..runs.folder import Run
from ..runs.results import WORST, Results
from ..session import Session
from ..settings.resolve import for_another_run, resolve_settings
from ..settings.tree import merge, write_settings
from ..storage.files import read_object, write_json
from .swept import as_name, identity_of, member_folder, own_options, with_known

BETAS: Final = (100.0, 250.0, 500.0, 1000.0, 2000.0)
"""The paper's grid."""
STRENGTHS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


class SweepResult(NamedTuple):
    """What a sweep says: the points in order, those on the frontier, and the one to ship, if any will do."""

    points: list[Point]
    frontier: list[float]
    ship: float | None


def sweep(
    first: Session,
    kind: Kind,
    values: Sequence[float],
    *,
    attacks: Sequence[AttackPlan] = (),
    want_dsr: float = 0.95,
    say: Callable[[str], None] = lambda _text: None,
) -> SweepResult:
    """Measure and attack one run a value, in FOLDER/sweep/KIND-VALUE, and draw FOLDER/sweep/KIND.svg.

    beta: each is trained by DUO. strength: the run's own edit, its change multiplied; nothing is trained. Pairs and the
    original model's attempts are made once, in the first run. What is done is skipped, so the same command goes on
    after a kill, and any number of processes may run it together: each trains and asks other members, and helps with
    one that is left. want_dsr: what the worst scenario or attack of a shipped model must have.
    """
    _check(first, kind, values)
    with first.run.lock(shared=True):
        make_pairs(first)
        left = {value: _member(first, kind, value) for value in sorted(set(values))}
        for value, session in left.items():
            _make(first, kind, value, session, wait=False)
        ask_original(first, attacks)
        points = []
        while left:
            value = _next(first, left)
            session = left.pop(value)
            # Whoever comes second to a member joins: its parts are claimed one by one.
            with first.run.claim(_claim(value)):
                _make(first, kind, value, session, wait=True)
                points.append(_point(session, value, _measure(session, first, attacks)))
            say(f"{kind} {as_name(value)}: {as_text(points[-1])}")
        with first.run.claim("sweep", wait=True):
            identity = identity_of(first, kind)
            every = with_known(first.run, kind, identity["of"], points)
            return _written(first.run, kind, every, identity, want_dsr)


def _written(run: Run, kind: Kind, points: Sequence[Point], of: Mapping[str, str], want_dsr: float) -> SweepResult:
    """Write the points and draw them, unless another process has done it. of: see `identity_of`."""
    chosen, path = choose(points, want_dsr), run.sweep / f"{kind}.json"
    figures = [run.sweep / f"{kind}.{suffix}" for suffix in ("svg", "png")]
    told = [{name: part for name, part in point._asdict().items() if name != "broken" or part} for point in points]
    shown = {"points": told, "frontier": chosen.frontier, "ship": chosen.ship}
    content = {"version": 1, "kind": kind, **of, "want_dsr": want_dsr, **shown}
    # Compared as the file has it, where tuples are lists.
    if (
        all(figure.exists() for figure in figures)
        and path.exists()
        and read_object(path) == json.loads(json.dumps(content))
    ):
        return chosen
    write_json(path, content)
    for figure in figures:
        frontier_plot(points, kind, figure)
    return chosen


def _check(first: Session, kind: Kind, values: Sequence[float]) -> None:
    if not values:
        raise DuoError(f"a sweep needs values of {kind}", hint=f"--{kind} 100 --{kind} 500")
    if odd := [value for value in values if not math.isfinite(value)]:
        raise DuoError(f"a {kind} must be a finite number", got=f"{odd[0]:g}", hint=f"for example --{kind} 1")
    if not first.concept.attacks or not first.concept.keep:
        hint = "add attacks: and keep: to the concept file"
        raise DuoError("a sweep needs prompts that ask for the concept, and keep prompts", hint=hint)
    eraser = first.settings.eraser
    if kind == "beta" and eraser != "duo":
        hint = "sweep --strength, or another run with --eraser duo"
        raise DuoError("β is a setting of DUO's training", got=f"a run of the eraser {eraser}", hint=hint)
    edit = first.settings.edit
    if first.settings.floor is not None:
        got, hint = f"{edit} on {first.settings.floor}", "duo arena, with an entrant a setting"
        raise DuoError("an edit on another one is not swept", got=got, hint=hint)
    if kind == "strength" and not first.run.edit(edit).is_dir():
        hint = "run `duo train` first, or sweep --beta"
        raise DuoError(f"{first.run.folder} holds no edit {edit}", hint=hint)


def _member(first: Session, kind: Kind, value: float) -> Session:
    """A run of the sweep: the first one's settings and model, and what does not depend on the edit copied."""
    run = Run(member_folder(first.run, kind, value))
    known = for_another_run(first.settings)
    if kind == "beta":
        known["train"] = {k: v for k, v in known["train"].items() if k not in own_options(first)} | {"beta": value}
    session = Session(resolve_settings(merge(known, {"output": str(run.folder)})), quiet=first.quiet)
    session.model = first.model  # several may not fit
    with first.run.claim("share", wait=True):
        share_pairs(first.run, run, session.settings.edit)
        if not run.settings.exists():
            write_settings(run.settings, session.settings)  # by which `duo status` knows what is to come
    return session


def _make(first: Session, kind: Kind, value: float, session: Session, *, wait: bool) -> None:
    """Make a member's edit. One that another process makes is left to it, or waited for."""
    edit = session.settings.edit
    with session.run.lock(shared=True), session.run.claim(f"edit.{edit}", wait=wait) as mine:
        if mine and kind == "beta":
            make_edit(session)
        elif mine:
            _scale(first.run.edit(edit), value, session.run.edit(edit))


def _next(first: Session, left: Mapping[float, Session]) -> float:
    """The member to go on with: one that nobody trains or measures, else one that nobody trains, else the first."""
    ready = [value for value, session in left.items() if _is_free(session.run, f"edit.{session.settings.edit}")]
    return next((value for value in ready if _is_free(first.run, _claim(value))), min(ready or left))


def _claim(value: float) -> str:
    return f"member.{as_name(value)}"


def _is_free(run: Run, claim: str) -> bool:
    with run.claim(claim) as mine:
        return mine


def _measure(session: Session, first: Session, attacks: Sequence[AttackPlan]) -> Results:
    """Measure and attack a member beside the original, without guards. What was made of the original is copied."""
    with first.run.claim("share", wait=True):
        share_originals(first.run, session.run)
    systems = [session.system(session.settings.edit)]
    with session.run.lock(shared=True):
        results = evaluate(session, systems).results
        for plan in attacks:
            results = attack(session, systems, plan).results
    return results


def _scale(source: Path, strength: float, target: Path) -> None:
    """The run's edit, its change multiplied, as the member's edit; one that is there already is kept."""
    origin = {"strength": strength, "sha256": edit_hash(source)}
    try:
        if read_provenance(target).get("scaled") == origin and edit_hash(target):
            return
    except DuoError:  # half written or broken: it is made again
        pass
    write_scaled(read_edit(source, source.name), strength, target, {"scaled": origin})


def _point(session: Session, value: float, results: Results) -> Point:
    """Preservation on keep prompts, and DSR by scenario and by attack, each (value, low, high, n)."""
    contract, system = str(session.judges.there[0].contract), session.settings.edit
    own = [e for e in results.estimates if e.system == system]
    keep = [e for e in own if (e.metric, e.scenario, e.attack) == ("prior preservation", "keep", None)]
    asked = next(iter(session.concept.attacks))
    panels = [e for e in own if e.contract == contract and is_panel(e.attack)]
    defence = {_label(e, asked): _figures(e) for e in panels if e.metric == "dsr"}
    broken = [_label(e, asked) for e in panels if (e.metric, e.value) == ("broken", 1)]
    if not keep or not defence:
        raise DuoError(
            "a member of the sweep has no DSR or no preservation", got=f"at {as_name(value)}", hint="see its report"
        )
    return Point(value, _figures(keep[0]), defence, tuple(name for name in broken if name not in defence))


def _figures(e: Estimate) -> tuple[float, float, float, int]:
    return e.value, e.low, e.high, e.n


def is_panel(attack: str | None) -> bool:
    """Whether an attack's DSR is a panel: not the worst of others, and not that of the model without its edits."""
    if attack is None:
        return True
    return attack != WORST and "edits" not in ATTACKS.get(attack.partition("@")[0]).needs


def _label(e: Estimate, asked: str) -> str:
    """The name of a panel: a scenario, or an attack with its budget. A run keeps what was measured under every one.

    asked: the scenario that attacks are on, which goes without saying.
    """
    if e.attack is None:
        return e.scenario
    place = "" if e.scenario == asked else f", {e.scenario}"
    return f"{e.attack}{place}" + ("" if e.preset == "paper" else f" ({e.preset})")


def choose(points: Sequence[Point], want_dsr: float) -> SweepResult:
    """The frontier by worst DSR and preservation; of the points that defend enough, the one that preserves most.

    The worst is over the scenarios and attacks that every point has met, and by values, not by their intervals. A point
    all of whose pictures of one of them are broken is not chosen: nobody knows what it defends.
    """
    asked = [{*point.defence, *point.broken} for point in points]
    met = set.intersection(*asked)
    whole = [point for point in points if met and met <= point.defence.keys()]
    worst = {point.at: min(point.defence[name][0] for name in met) for point in whole}
    places = {point.at: (worst[point.at], point.kept[0]) for point in whole}

    def is_beaten(here: tuple[float, float]) -> bool:
        return any(other != here and other[0] >= here[0] and other[1] >= here[1] for other in places.values())

    frontier = [at for at, place in places.items() if not is_beaten(place)]
    enough = [point for point in whole if worst[point.at] >= want_dsr]
    best = max(enough, key=lambda point: point.kept[0]).at if enough else None
    return SweepResult(list(points), frontier, best)


def as_text(point: Point) -> str:
    """A point in a line."""
    weakest = min(point.defence, key=lambda name: point.defence[name][0])
    value, low, high, n = point.defence[weakest]
    return (
        f"preservation {point.kept[0]:.3f} [{point.kept[1]:.3f}, {point.kept[2]:.3f}] n = {point.kept[3]}, "
        f"weakest: {weakest}, DSR {value:.1%} [{low:.1%}, {high:.1%}] n = {n}"
        + (f"; every picture broken: {', '.join(point.broken)}" if point.broken else "")
    )
