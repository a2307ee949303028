"""The paper's figure: how much is defended against how much is preserved, over β or over one adapter's strength."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..arena.evaluation import evaluate
from ..arena.judge import WORST, measure
from ..arena.red_team import asked, attack
from ..attacks.interface import Preset
from ..edits.files import read_adapter, scaled
from ..errors import DuoError
from ..pipeline import make_pairs, train
from ..report.frontier import Kind, Point, frontier_plot
from ..runs.folder import Run
from ..session import Session
from ..settings.resolve import resolve_settings
from ..settings.tree import merge
from ..storage.files import read_json, sha256_of, write_bytes, write_json

BETAS: Final = (100.0, 250.0, 500.0, 1000.0, 2000.0)
"""The paper's grid."""
STRENGTHS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


class Choice(NamedTuple):
    """What a sweep says: the points in order, those on the frontier, and the one to ship, if any will do."""

    points: list[Point]
    frontier: list[float]
    ship: float | None


class Assault(NamedTuple):
    """Attacks that every member of a sweep undergoes. prompts: how many."""

    names: Sequence[str]
    preset: Preset = "quick"
    prompts: int = 20


def sweep(
    first: Session,
    kind: Kind,
    values: Sequence[float],
    *,
    assaults: Sequence[Assault] = (),
    want_dsr: float = 0.95,
    say: Callable[[str], None] = lambda _text: None,
) -> Choice:
    """Measure and attack one run a value, in FOLDER/sweep/KIND-VALUE, and draw FOLDER/sweep/KIND.svg.

    beta: each is trained. strength: the run's own adapter, its change multiplied; nothing is trained. Pairs and the
    original model's images are shared. What is done is skipped, so the same command goes on after a kill.
    want_dsr: what the worst prompt set or attack of a shipped model must have.
    """
    if not values:
        raise DuoError(f"a sweep needs values of {kind}", hint=f"--{kind} 100 --{kind} 500")
    if not first.concept.attacks or not first.concept.keep:
        hint = "add attacks: and keep: to the concept file"
        raise DuoError("a sweep needs prompts that ask for the concept, and keep prompts", hint=hint)
    if kind == "strength" and not first.run.adapter_weights.exists():
        raise DuoError(f"{first.run.folder} holds no adapter", hint="run `duo train` first, or sweep --beta")
    with first.run.lock():
        make_pairs(first)
    vars(first).pop("model", None)  # each member loads its own; two may not fit
    points = []
    for value in sorted(set(values)):
        session = _member(first, kind, value)
        with session.run.lock():
            if kind == "beta":
                train(session)
            else:
                _scale(first.run, value, session.run)
            estimates, _ = evaluate(session)
            for assault in assaults:
                attack(session, assault.names, assault.preset, asked(session, assault.prompts))
            rows = measure(session.run, session.detector, quiet=True) if assaults else []
        points.append(_point(value, [e.as_json() for e in estimates], rows))
        say(f"{kind} {value:g}: {told(points[-1])}")
        with first.run.claim("share", wait=True):
            _share(session.run, first.run)
    points = _with_known(first.run, kind, points)
    chosen = choose(points, want_dsr)
    folder = first.run.folder / "sweep"
    found = {"points": [point._asdict() for point in points], "frontier": chosen.frontier, "ship": chosen.ship}
    write_json(folder / f"{kind}.json", {"version": 1, "kind": kind, "want_dsr": want_dsr, **found})
    for suffix in ("svg", "png"):
        frontier_plot(points, kind, folder / f"{kind}.{suffix}")
    return chosen


def _member(first: Session, kind: Kind, value: float) -> Session:
    """A run of the sweep: the first one's settings, and what does not depend on the adapter copied."""
    run = Run(first.run.folder / "sweep" / f"{kind}-{value:g}")
    told = first.settings.model_dump(mode="json", exclude={"output": True, "pairs": {"folder"}})
    if kind == "beta":
        if first.settings.recipe == "paper":  # lr and λ follow β there, so they are not carried over
            told["train"] = {k: v for k, v in told["train"].items() if k not in ("learning_rate", "prior_weight")}
        told = merge(told, {"train": {"beta": value}})
    session = Session(resolve_settings(merge(told, {"output": str(run.folder)})), quiet=first.quiet)
    with first.run.claim("share", wait=True):
        _share_pairs(first.run, run)
        _share(first.run, run)
    return session


def _scale(source: Run, strength: float, target: Run) -> None:
    """The run's adapter, its change multiplied, as the member's adapter."""
    made_from = {"strength": strength, "sha256": sha256_of(source.adapter_weights)}
    if target.adapter_weights.exists() and read_adapter(target.adapter).provenance.get("scaled") == made_from:
        return
    part = read_adapter(source.adapter)
    scaled(part._replace(provenance={**part.provenance, "scaled": made_from}), strength, target.adapter)


def _share_pairs(source: Run, target: Run) -> None:
    """Copy the pairs, where the member has none or others (someone dropped some)."""
    lists = [run.pairs / "manifest.json" for run in (source, target)]
    if not lists[1].exists() or lists[0].read_bytes() != lists[1].read_bytes():
        _copy(source.pairs, target.pairs, lambda _place: True)
        shutil.rmtree(target.checkpoint.parent, ignore_errors=True)  # of a training on the other pairs


def _share(source: Run, target: Run) -> None:
    """Copy what was made of the original model, but for what is there already."""
    for made, kept in ((source.evaluation, target.evaluation), (source.attacks, target.attacks)):

        def lacking(place: Path, kept: Path = kept) -> bool:
            return not _of_erased(place) and not (kept / place).exists()

        _copy(made, kept, lacking)


def _copy(made: Path, kept: Path, wanted: Callable[[Path], bool]) -> None:
    for path in sorted(made.rglob("*")):
        # What starts with a dot is being written.
        if path.is_file() and not path.name.startswith(".") and wanted(path.relative_to(made)):
            target = kept / path.relative_to(made)
            if path.suffix == ".json" and isinstance(told := read_json(path), dict) and "seconds" in told:
                # The time was another run's, and is counted there.
                write_json(target, {key: value for key, value in told.items() if key != "seconds"})
            else:
                write_bytes(target, path.read_bytes())


def _with_known(run: Run, kind: Kind, points: Sequence[Point]) -> list[Point]:
    """The points with those of earlier sweeps of the run whose members are there still, in order."""
    path, new = run.sweep / f"{kind}.json", {point.at for point in points}
    known = read_json(path)["points"] if path.exists() else []
    there = [p for p in known if p["at"] not in new and (run.sweep / f"{kind}-{p['at']:g}").is_dir()]
    kept = [Point(p["at"], tuple(p["kept"]), {k: tuple(v) for k, v in p["defence"].items()}) for p in there]
    return sorted([*points, *kept], key=lambda point: point.at)


def _of_erased(path: Path) -> bool:
    """Whether a file belongs to an erased model, which differs in every member, or judges it."""
    names = ("verdicts.json", "attack.json", "inverted.safetensors")
    return "measures" in path.parts or path.name in names or any("erased" in part for part in path.parts)


def _point(value: float, estimates: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> Point:
    """Preservation on keep prompts, and DSR by prompt set and by attack, each (value, low, high, n)."""

    def figures(entry: dict[str, Any]) -> tuple[float, float, float, int]:
        return entry["value"], entry["low"], entry["high"], entry["n"]

    erased = [entry for entry in estimates if entry["model"] == "erased"]
    kept = [e for e in erased if (e["metric"], e["prompts"]) == ("prior preservation", "keep")]
    defence = {e["prompts"]: figures(e) for e in erased if e["metric"] == "dsr"}
    ignored = ("direct", "adapter-removal", WORST)
    for row in rows:
        if row["model"] == "erased" and row["attack"] not in ignored:
            # A run keeps what was measured under every budget.
            defence[row["attack"] + (" (quick)" if row["preset"] == "quick" else "")] = figures(row)
    if not kept or not defence:
        raise DuoError(
            "a member of the sweep has no DSR or no preservation", got=f"at {value:g}", hint="see its report"
        )
    return Point(value, figures(kept[0]), defence)


def choose(points: Sequence[Point], want_dsr: float) -> Choice:
    """The frontier by worst DSR and preservation; of the points that defend enough, the one that preserves most.

    The worst is over the prompt sets and attacks that every point has met, and by values, not by their intervals.
    """
    met = [name for name in points[0].defence if all(name in point.defence for point in points)]
    worst = {point.at: min(point.defence[name][0] for name in met) for point in points}
    places = {point.at: (worst[point.at], point.kept[0]) for point in points}

    def beaten(here: tuple[float, float]) -> bool:
        return any(other != here and other[0] >= here[0] and other[1] >= here[1] for other in places.values())

    frontier = [at for at, place in places.items() if not beaten(place)]
    enough = [point for point in points if worst[point.at] >= want_dsr]
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
