"""The commands of the arena: attack and judge."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import DuoError
from .options import (
    Concept,
    Device,
    Erased,
    GuardNames,
    Lora,
    Model,
    Output,
    RunFolder,
    SystemNames,
    TextEncoder,
    Unet,
    Workers,
    joined_concept,
    one_folder,
    say,
    system_names,
)
from .tables import attacks_table, estimates_table
from .workers import share

if TYPE_CHECKING:
    from ..attacks.interface import Preset
    from ..session import Session


PROMPTS: Final = 50
"""How many prompts are attacked where nobody says."""
OF_OTHERS: Final = "for a model of others, name its base: --model BASE --erased FOLDER -o RUN"


def add_commands(app: typer.Typer) -> None:
    """Register them."""
    app.command()(attack)
    app.command()(judge)


def attack(
    run: Annotated[Path | None, typer.Argument(help="The run folder.")] = None,
    names: Annotated[
        list[str] | None, typer.Option("--attack", help="One of `duo attacks`; all when not given. Repeatable.")
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="quick: minutes on the mini model; paper: as published.")
    ] = "quick",
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="How many prompts are attacked; 50 when not given.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A file of prompts, all attacked: .txt, .csv, .jsonl.")
    ] = None,
    replay: Annotated[Path | None, typer.Option("--replay", help="Use what was found on this run's model.")] = None,
    system: SystemNames = None,
    guard: GuardNames = None,
    aware: Annotated[
        bool, typer.Option("--aware/--unaware", help="Whether white-box searches see the system's guards.")
    ] = False,
    erased: Erased = None,
    lora: Lora = None,
    unet: Unet = None,
    text_encoder: TextEncoder = None,
    workers: Workers = None,
    output: Output = None,
    model: Model = None,
    concept: Concept = None,
    device: Device = None,
) -> None:
    """Attack a run's systems, and the original beside them; the images are kept, and judged.

    duo attack runs/sword --preset quick

    duo attack runs/sword --attack unlearndiffatk --attack p4d --preset paper --count 100

    duo attack runs/sword --system duo+negative-prompt --attack p4d --aware

    duo attack runs/sword --workers auto

    duo attack runs/other --attack p4d --replay runs/sword

    What others erased, without a run of ours:

    duo attack -o runs/theirs --model ./sd15 --erased ./sd15-erased --concept nudity
    """
    from ..pipeline import attack as run_attacks

    budget = checked_preset(preset)
    if prompts is not None and count is not None:
        hint = "leave --count out, or name a shorter file"
        raise DuoError("every prompt of a file is attacked", got=f"--count {count} with --prompts", hint=hint)
    session = _session(one_folder(run, output), {"model": model, "concept": joined_concept(concept), "device": device})
    sources = {"erased": erased, "lora": lora, "unet": unet, "text_encoder": text_encoder}
    share(workers, {session.run.folder: ["images"]}, sys.argv[1:], device=session.settings.device)
    states, results = run_attacks(
        session,
        names,
        systems=system_names(session, system, guard, sources),
        preset=budget,
        prompts=count if count is not None else PROMPTS,
        file=prompts,
        replay=replay,
        aware=aware,
        say=say,
    )
    unattacked = {state.group.scenario for state in states if state.group.preset is None}
    estimates_table([estimate for estimate in results.estimates if estimate.scenario in unattacked])
    attacks_table(results.estimates)


def _session(folder: Path | None, flags: dict[str, str | None]) -> Session:
    """The run of a folder: one that is there, or a new one where a model is named."""
    from ..pipeline import open_run, reopen_run

    if folder is None:
        hint = "duo attack RUN; or -o RUN --model BASE --erased FOLDER --concept C for a model that others erased"
        raise DuoError("a run folder is needed", hint=hint)
    settings: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    if "model" not in settings:
        reopen_run(folder, hint=f"run `duo erase` first; {OF_OTHERS}")
    session = open_run(folder, settings=settings)
    session.begin()  # before a concept or seed of another run is held against its edits
    return session


def checked_preset(preset: str) -> Preset:
    """The preset of a name; an unknown one is a DuoError."""
    known: tuple[Preset, ...] = ("quick", "paper")
    for one in known:
        if preset == one:
            return one
    raise DuoError("unknown preset", got=preset, hint="quick or paper")


def judge(
    run: RunFolder,
    detector: Annotated[str | None, typer.Option("--detector", help="Another one than the concept's.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="A label of that detector; repeatable.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="The threshold of that detector.")] = None,
) -> None:
    """Judge every attempt of a run again, under another detector or threshold if you like; nothing is sampled.

    The numbers under each contract stand side by side in results.json and in the report. With people's labels in
    labels.jsonl each judge's errors are told, and DSR corrected for them stands beside the judge's.

    duo judge runs/sword

    duo judge runs/sword --threshold 0.95

    duo judge runs/nudity --detector nudenet --label contract=exposed-0.45
    """
    from ..pipeline import judge as judge_run
    from ..pipeline import reopen_run
    from .tables import judges_table

    session = reopen_run(run)
    results = judge_run(session, detector, labels=labels or (), threshold=threshold, say=say)
    estimates_table(results.estimates)
    attacks_table(results.estimates)
    judges_table(results.labels)
