"""The paper's figure: how much is defended against how much is preserved, over β."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from .config import merged
from .errors import DuoError
from .evaluation import evaluate
from .measuring import WORST, measure
from .pipeline import make_pairs, train
from .red_team import asked, attack
from .report.frontier import Point, frontier_plot
from .run import Run
from .session import Session
from .settings import resolve_settings
from .storage import write_json

BETAS: Final = (100.0, 250.0, 500.0, 1000.0, 2000.0)
"""The paper's grid."""


class Choice(NamedTuple):
    """What a sweep says: the points in order of β, those on the frontier, and the one to ship, if any will do."""

    points: list[Point]
    frontier: list[float]
    ship: float | None


def sweep(
    first: Session,
    betas: Sequence[float],
    *,
    attacks: Sequence[str] = (),
    count: int = 20,
    want_dsr: float = 0.95,
    say: Callable[[str], None] = lambda _text: None,
) -> Choice:
    """Train, measure and attack one run a β, in FOLDER/sweep/beta-β, and draw FOLDER/sweep/frontier.svg.

    Pairs and the original model's images are shared. What is done is skipped, so the same command goes on after a kill.
    want_dsr: what the worst prompt set or attack of a shipped model must have.
    """
    if not betas:
        raise DuoError("a sweep needs β values", hint="--beta 100 --beta 500")
    with first.run.lock():
        make_pairs(first)
    points = []
    for beta in sorted(set(betas)):
        session = _member(first, beta)
        with session.run.lock():
            train(session)
            estimates, _ = evaluate(session)
            rows: list[dict[str, Any]] = []
            if attacks:
                attack(session, attacks, "quick", asked(session, count))
                rows = [row for row in measure(session.run, session.detector, quiet=True) if row["attack"] != WORST]
        points.append(_point(beta, [e.as_json() for e in estimates], rows))
        say(f"β {beta:g}: {told(points[-1])}")
        _share_originals(session.run, first.run)
    chosen = choose(points, want_dsr)
    folder = first.run.folder / "sweep"
    found = {"points": [point._asdict() for point in points], "frontier": chosen.frontier, "ship": chosen.ship}
    write_json(folder / "sweep.json", {"version": 1, "want_dsr": want_dsr, **found})
    frontier_plot(points, folder / "frontier.svg")
    frontier_plot(points, folder / "frontier.png")
    return chosen


def _member(first: Session, beta: float) -> Session:
    """A run of the sweep: the first one's settings with another β, and what does not depend on β copied."""
    run = Run(first.run.folder / "sweep" / f"beta-{beta:g}")
    told = first.settings.model_dump(mode="json", exclude={"output": True, "pairs": {"folder"}})
    if first.settings.recipe == "paper":  # lr and λ follow β there, so they are not carried over
        told["train"] = {}
    session = Session(
        resolve_settings(merged(told, {"output": str(run.folder), "train": {"beta": beta}})), quiet=first.quiet
    )
    if not run.pairs.exists():
        shutil.copytree(first.run.pairs, run.pairs)
    for source, target in ((first.run.evaluation, run.evaluation), (first.run.attacks, run.attacks)):
        if source.exists() and not target.exists():
            shutil.copytree(source, target, ignore=_of_erased)
    return session


def _of_erased(_folder: str, names: list[str]) -> list[str]:
    """What belongs to an erased model, which differs in every member."""
    return [name for name in names if "erased" in name or name in ("verdicts.json", "attack.json", "measures")]


def _share_originals(source: Run, target: Run) -> None:
    """The original model's images, made by the first member, for those to come."""
    for made, kept in ((source.evaluation, target.evaluation), (source.attacks, target.attacks)):
        if made.exists() and not kept.exists():
            shutil.copytree(made, kept, ignore=_of_erased)


def _point(beta: float, estimates: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> Point:
    """Preservation on keep prompts, and DSR by prompt set and by attack, each (value, low, high, n)."""

    def figures(entry: dict[str, Any]) -> tuple[float, float, float, int]:
        return entry["value"], entry["low"], entry["high"], entry["n"]

    erased = [entry for entry in estimates if entry["model"] == "erased"]
    kept = [e for e in erased if (e["metric"], e["prompts"]) == ("prior preservation", "keep")]
    if not kept:
        raise DuoError("a sweep needs keep prompts", hint="add keep: to the concept file")
    defence = {e["prompts"]: figures(e) for e in erased if e["metric"] == "dsr"}
    ignored = ("direct", "adapter-removal")
    defence |= {r["attack"]: figures(r) for r in rows if r["model"] == "erased" and r["attack"] not in ignored}
    return Point(beta, figures(kept[0]), defence)


def choose(points: Sequence[Point], want_dsr: float) -> Choice:
    """The frontier by worst DSR and preservation; of the points that defend enough, the one that preserves most."""
    places = {point.at: (point.worst, point.kept[0]) for point in points}

    def beaten(here: tuple[float, float]) -> bool:
        return any(other != here and other[0] >= here[0] and other[1] >= here[1] for other in places.values())

    frontier = [at for at, place in places.items() if not beaten(place)]
    enough = [point for point in points if point.worst >= want_dsr]
    best = max(enough, key=lambda point: point.kept[0]).at if enough else None
    return Choice(list(points), frontier, best)


def told(point: Point) -> str:
    """A point in a line."""
    weakest = min(point.defence, key=lambda name: point.defence[name][0])
    value, low, high, n = point.defence[weakest]
    return (
        f"preservation {point.kept[0]:.3f} [{point.kept[1]:.3f}, {point.kept[2]:.3f}] n = {point.kept[3]}, "
        f"weakest: {weakest}, DSR {value:.1%} [{low:.1%}, {high:.1%}] n = {n}"
    )
