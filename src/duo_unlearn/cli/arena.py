"""The red team's commands: attack, measure, sweep, compare, attacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DuoError

if TYPE_CHECKING:
    from ..attacks.interface import Preset
    from ..report.frontier import Kind
    from ..session import Session

RunFolder = Annotated[Path, typer.Argument(help="The run folder.")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _session(run: Path) -> Session:
    from ..runs.folder import Run
    from ..session import Session
    from ..settings.resolve import resolve_settings

    if not Run(run).settings.exists():
        raise DuoError(f"{run} is no run folder", got="no settings.yaml in it", hint="run `duo erase` first")
    return Session(resolve_settings({"output": str(run)}))


def attack(
    run: RunFolder,
    names: Annotated[
        list[str] | None, typer.Option("--attack", help="One of `duo attacks`; all when not given.")
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="quick: minutes on the mini model; paper: as published.")
    ] = "quick",
    count: Annotated[int, typer.Option("--count", min=1, help="Prompts that are attacked.")] = 50,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A file of prompts: .txt, .csv, .jsonl.")] = None,
    replay: Annotated[Path | None, typer.Option("--replay", help="Use what was found on this run's model.")] = None,
) -> None:
    """Attack a run's erased model, and the original beside it; the images are kept, and judged by `duo measure`.

    duo attack runs/sword --preset quick

    duo attack runs/sword --attack unlearndiffatk --attack p4d --preset paper --count 100

    duo attack runs/other --attack p4d --replay runs/sword
    """
    from ..arena.judge import measure as judge
    from ..arena.red_team import asked
    from ..arena.red_team import attack as run_attacks
    from ..attacks.registry import ATTACKS
    from ..pipeline import report as write_report
    from .tables import attacks_table

    budget = _checked(names or [], preset)
    session = _session(run)
    # Others may join with the same command: the work is divided by claims.
    with session.run.lock(shared=True):
        chosen = asked(session, count, prompts)
        for line in run_attacks(session, names or list(ATTACKS), budget, chosen, replay):
            _say(f"{line.attack}: " + (f"{line.attempts} attempts a model" if line.reason is None else line.reason))
        attacks_table(judge(session.run, session.detector))
        _say(f"report: done → {write_report(session.run)}")


def measure(
    run: RunFolder,
    detector: Annotated[str | None, typer.Option("--detector", help="Another one than the concept's.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="Of that detector; repeatable.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Of that detector.")] = None,
) -> None:
    """Judge the attempts of `duo attack`, again under another detector if you like; nothing is sampled.

    duo measure runs/sword

    duo measure runs/nudity --detector nudenet --label contract=exposed-0.45
    """
    from ..arena.judge import measure as judge
    from ..detectors.interface import make_detector
    from ..families.identify import family_of
    from ..pipeline import report as write_report
    from .tables import attacks_table

    session = _session(run)
    used: Any = session.detector
    if detector is not None:
        used = make_detector(detector, tuple(labels or ()), family_of(session.settings.model), threshold)
    with session.run.lock():
        attacks_table(judge(session.run, used))
        _say(f"report: done → {write_report(session.run)}")


def sweep(
    run: RunFolder,
    beta: Annotated[list[float] | None, typer.Option("--beta", help="Repeatable; else the paper's grid.")] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option("--strength", min=0, help="Of the run's adapter, not β; repeatable."),
    ] = None,
    names: Annotated[list[str] | None, typer.Option("--attack", help="One of `duo attacks`; repeatable.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Budget of the attacks: quick or paper.")] = "quick",
    count: Annotated[int, typer.Option("--count", min=1, help="Prompts that are attacked.")] = 20,
    want_dsr: Annotated[float, typer.Option("--want-dsr", min=0, max=1, help="Of what is shipped.")] = 0.95,
) -> None:
    """Train a run's concept at several β, measure each, and draw what is defended against what is preserved.

    Pairs and the original's images are those of the run; each β has a run folder of its own in RUN/sweep. With
    --strength one adapter is measured at several strengths, and nothing is trained.

    duo sweep runs/sword --beta 5 --beta 9 --beta 20 --attack ring-a-bell

    duo sweep runs/sword --strength 0.5 --strength 1 --strength 1.5
    """
    from ..experiments.sweep import BETAS, Assault
    from ..experiments.sweep import sweep as run_sweep

    if beta and strength:
        raise DuoError("a sweep is over β or over strength", got="--beta and --strength", hint="one command each")
    budget = _checked(names or [], preset)
    session = _session(run)
    kind: Kind = "strength" if strength else "beta"
    values = strength or beta or BETAS
    assaults = [Assault(names, budget, count)] if names else []
    chosen = run_sweep(session, kind, values, assaults=assaults, want_dsr=want_dsr, say=_say)
    _say(f"on the frontier: {kind} {', '.join(f'{at:g}' for at in chosen.frontier)}")
    ship = f"ship {kind} {chosen.ship:g}" if chosen.ship is not None else f"no {kind} reaches it"
    _say(f"for a DSR of {want_dsr:.0%} in the weakest prompt set or attack: {ship}")
    _say(f"figure → {run / 'sweep' / f'{kind}.svg'}, numbers → {run / 'sweep' / f'{kind}.json'}")


def _checked(names: list[str], preset: str) -> Preset:
    """The preset, when it and the attacks exist."""
    from ..attacks.registry import ATTACKS

    if unknown := [name for name in names if name not in ATTACKS]:
        raise DuoError("unknown attack", got=unknown[0], hint=f"one of: {', '.join(ATTACKS)}")
    known: tuple[Preset, ...] = ("quick", "paper")
    for one in known:
        if preset == one:
            return one
    raise DuoError("unknown preset", got=preset, hint="quick or paper")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the numbers as JSON.")] = None,
) -> None:
    """Runs side by side; the spread between seeds; and how what was found on one run does on another.

    Runs that differ by their seed alone have the mean over seeds, its 95 % interval and the standard deviation. What
    `duo attack B --replay A` left makes the transfer matrix.

    duo compare runs/sword-seed0 runs/sword-seed1 runs/sword-seed2

    duo compare runs/sword-beta9 runs/sword-beta100 -o transfer.json
    """
    from ..experiments.compare import compare as run_compare
    from ..storage.files import write_json
    from .tables import comparison_tables

    found = run_compare(runs)
    comparison_tables(found.as_json())
    if output is not None:
        write_json(output, found.as_json())
        _say(f"numbers → {output}")


def attacks(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False) -> None:
    """The attacks and their budgets.

    duo attacks
    """
    import json

    from ..attacks.registry import ATTACKS

    rows = [
        {"attack": name, "title": one.title, "quick": one.budget("quick"), "paper": one.budget("paper")}
        for name, one in ATTACKS.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['attack']:<24}{row['title']}")
        for preset in ("quick", "paper"):
            budget: Any = row[preset]
            if budget:
                print(f"{'':<24}  {preset}: " + ", ".join(f"{key} {value:g}" for key, value in budget.items()))
