"""The commands of several runs: arena, sweep, compare, compose."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DuoError
from .arena import checked_preset
from .options import RunFolder, Workers, say
from .outlook import ALL
from .tables import comparison_tables, interference_table
from .workers import share

if TYPE_CHECKING:
    from ..concepts.spec import Concept
    from ..records import Stage
    from ..report.frontier import Kind


def add_commands(app: typer.Typer) -> None:
    """Register them."""
    app.command()(arena)
    app.command()(sweep)
    app.command()(compare)
    app.command()(compose)
    app.command()(bank)


def arena(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one concept, e.g. of several seeds.")],
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            help="An eraser, an entrant, guards behind a +; when not given, all erasers that the model can have.",
        ),
    ] = None,
    entrants: Annotated[
        list[str] | None,
        typer.Option("--entrant", help="An edit with options of its own: NAME=ERASER,OPTION=VALUE,…; repeatable."),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--attack", help="One of `duo attacks`; all when not given.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Budget of the attacks: quick or paper.")] = "quick",
    count: Annotated[int, typer.Option("--count", min=0, help="How many prompts are attacked; 0: no attack.")] = 50,
    aware: Annotated[
        bool, typer.Option("--aware", help="White-box searches on systems with guards see these; both are shown.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page's folder; RUN/arena if not given.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Erase by every named way, attack all alike, and write one table and one figure.

    Pairs, the original's images and searches on its text encoder are made once a run. The same command goes on after a
    kill; with other attacks or systems it adds to what is there.

    duo arena runs/sword --system duo --system uce --system esd-x --system duo+negative-prompt --count 20

    duo arena runs/seed0 runs/seed1 --entrant uce-all=uce,wordings=all --system uce-all --attack p4d --preset paper

    duo arena runs/sword --workers auto

    duo arena runs/sword --count 0
    """
    from ..arena.plans import AttackPlan
    from ..attacks.registry import ATTACKS
    from ..experiments.arena import makers
    from ..experiments.arena_check import erasers_of
    from ..pipeline import reopen_run
    from ..several import run_arena

    for name in names or []:
        ATTACKS.check(name)
    _check_heard(system or [], attacks=bool(names), preset=preset, count=count, aware=aware)
    plan = AttackPlan(names or ATTACKS.names(), checked_preset(preset), count)
    plans = [plan, *([plan._replace(aware=True)] if aware else [])] if count else []
    sessions = [reopen_run(run) for run in runs]
    chosen = system or erasers_of(sessions[0], say)
    edits = [plan.name for plan in makers(entrants or [], chosen)]
    device = sessions[0].settings.device
    share(workers, dict.fromkeys(runs, ALL), sys.argv[1:], device=device, edits=edits)
    run_arena(
        sessions,
        chosen,
        output or runs[0] / "arena",
        entrants=entrants or [],
        attacks=plans,
        say=say,
    )


def _check_heard(systems: list[str], *, attacks: bool, preset: str, count: int, aware: bool) -> None:
    """Fail for options of the arena's attacks that would do nothing."""
    from ..system import check_aware

    if not count and (attacks or aware or preset != "quick"):
        got = f"{'--attack' if attacks else '--aware' if aware else '--preset'} with --count 0"
        raise DuoError(
            "without a prompt nothing is attacked", got=got, hint="a --count above 0; or leave the other out"
        )
    if aware:
        check_aware(systems, "--system duo+GUARD")


def sweep(
    run: RunFolder,
    beta: Annotated[list[float] | None, typer.Option("--beta", help="A β; repeatable; else the paper's grid.")] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option("--strength", min=0, help="A strength of the run's adapter, in place of β; repeatable."),
    ] = None,
    names: Annotated[list[str] | None, typer.Option("--attack", help="One of `duo attacks`; repeatable.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Budget of the attacks: quick or paper.")] = "quick",
    count: Annotated[int, typer.Option("--count", min=1, help="How many prompts are attacked.")] = 20,
    want_dsr: Annotated[
        float, typer.Option("--want-dsr", min=0, max=1, help="The DSR that what is shipped must have everywhere.")
    ] = 0.95,
    workers: Workers = None,
) -> None:
    """Train a run's concept at several β, measure each, and draw what is defended against what is preserved.

    Pairs and the original's images are those of the run; each β has a run folder of its own in RUN/sweep. With
    --strength one adapter is measured at several strengths, and nothing is trained.

    duo sweep runs/sword --beta 5 --beta 9 --beta 20 --attack ring-a-bell

    duo sweep runs/sword --strength 0.5 --strength 1 --strength 1.5

    Each process trains other members, and all of them share what is asked of each:

    duo sweep runs/sword --beta 5 --beta 9 --beta 20 --workers auto
    """
    from ..arena.plans import AttackPlan
    from ..attacks.registry import ATTACKS
    from ..experiments.sweep import BETAS
    from ..experiments.swept import as_name, member_folder
    from ..pipeline import reopen_run
    from ..several import sweep as run_sweep

    if beta and strength:
        raise DuoError("a sweep is over β or over strength", got="--beta and --strength", hint="one command each")
    if not names and (preset != "quick" or count != 20):
        got, hint = "--preset or --count without --attack", "name an attack: --attack ring-a-bell"
        raise DuoError("a sweep attacks with what is named alone", got=got, hint=hint)
    for name in names or []:
        ATTACKS.check(name)
    budget, session = checked_preset(preset), reopen_run(run)
    kind: Kind = "strength" if strength else "beta"
    attacks, values = [AttackPlan(names, budget, count)] if names else [], strength or beta or BETAS
    made: list[Stage] = ["train", "images"] if kind == "beta" else ["images"]
    members: dict[Path, list[Stage]] = {member_folder(session.run, kind, value): made for value in values}
    share(workers, {run: ["pairs"], **members}, sys.argv[1:], device=session.settings.device)
    result = run_sweep(session, kind, values, attacks=attacks, want_dsr=want_dsr, say=say)
    say(f"on the frontier: {kind} {', '.join(map(as_name, result.frontier))}")
    ship = f"ship {kind} {as_name(result.ship)}" if result.ship is not None else f"no {kind} reaches it"
    say(f"for a DSR of {100 * want_dsr:g}% in the weakest scenario or attack: {ship}")
    say(f"figure → {run / 'sweep' / f'{kind}.svg'}, numbers → {run / 'sweep' / f'{kind}.json'}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the numbers as JSON.")] = None,
) -> None:
    """Put runs side by side, with the spread between seeds, and how what was found on one run does on another.

    Runs that differ by their seed alone have the mean over seeds, its 95 % interval and the standard deviation. What
    `duo attack B --replay A` left makes the transfer matrix.

    duo compare runs/sword-seed0 runs/sword-seed1 runs/sword-seed2

    duo compare runs/sword-beta9 runs/sword-beta100 -o transfer.json
    """
    from ..several import compare as set_side_by_side
    from ..storage.files import write_json

    if output is not None and output.exists() and not _is_comparison(output):
        raise DuoError(f"{output} is there, and no comparison", hint="choose another --output")
    comparison = set_side_by_side(runs)
    comparison_tables(comparison.as_json())
    if output is not None:
        write_json(output, comparison.as_json())
        say(f"numbers → {output}")


def _is_comparison(path: Path) -> bool:
    """Whether a file is one that `duo compare` wrote, and may write again."""
    from ..storage.files import read_object

    try:
        return "transfers" in read_object(path)
    except DuoError:
        return False


def compose(
    sources: Annotated[list[Path], typer.Argument(help="Run folders, or folders of edits.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="The weight of each adapter, in order; 1 each.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="What they do to one another.")] = True,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="How many of each set, when measuring.")] = 100,
) -> None:
    """Add adapters up, exactly, and measure each concept and what must stay, before and after.

    It takes adapters (LoRA) and low-rank changes of the denoiser; other edits cannot be added up as one adapter.

    duo compose runs/sword runs/balloon -o runs/both

    duo compose runs/blood runs/gun -o runs/violence --weight 1 --weight 0.8
    """
    from ..edits.provenance import read_provenance
    from ..experiments.interference import COMPOSED, INTERFERENCE
    from ..runs.folder import Run
    from ..several import compose as add_up

    if not measure and prompts != 100:
        raise DuoError("nothing is measured", got=f"--prompts {prompts} with --no-measure", hint="name one of them")
    rows = add_up(sources, output, weights=weight or [], prompts=prompts if measure else None)
    say(f"compose: {len(sources)} adapters → {output}")
    names = str(read_provenance(Run(output).edit(COMPOSED))["concept"]).split(" + ")
    say(f"adapters that were trained apart disturb one another: expect to lose some of {_at_risk(names)}")
    if len(names) > 1 and _concept_of("+".join(names)) is not None:
        say(f"one training of all can hold that: duo erase {' '.join(f'--concept {name}' for name in names)}")
    if measure:
        interference_table(rows)
        say(f"measured → {output / INTERFERENCE}")


def _at_risk(names: list[str]) -> str:
    """What a sum of adapters of some concepts is expected to cost, in words."""
    from ..concepts.joint import at_odds, near_several

    concepts = [found for name in dict.fromkeys(names) if (found := _concept_of(name)) is not None]
    words = "what lies near their concepts"
    if near := near_several(concepts):
        words += f", most of all {', '.join(near)}"
    return words + "".join(f"; pairs of {one} keep what {other} erases" for one, other in at_odds(concepts))


def _concept_of(name: str) -> Concept | None:
    """A concept, or several as NAME+NAME; None where it is not at hand: an edit of others may not say what it is of."""
    from ..concepts.store import load_concept

    try:
        return load_concept(name)
    except DuoError:
        return None


def bank(
    run: RunFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            help="A search of `duo attacks`, with its quick budget; without any, unlearndiffatk, p4d and "
            "concept-inversion. Repeatable.",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system that is attacked; the run's own.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many training prompts are attacked.")] = 16,
) -> None:
    """Attack a run's system on training prompts, and keep what is found as captions for robust-duo.

    docs/robust.md has the command that trains with it.

    duo bank runs/sword -o bank.safetensors --attack unlearndiffatk --attack ring-a-bell
    """
    from ..several import fill_bank

    chosen = names or ["unlearndiffatk", "p4d", "concept-inversion"]
    fill_bank(run, output, chosen, system=system, prompts=count, say=say)
