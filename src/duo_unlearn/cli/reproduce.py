"""The command that runs a publication's protocol."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DuoError
from .options import Seed, Workers, flag_settings, say
from .workers import share


def add_commands(app: typer.Typer) -> None:
    """Register it."""
    app.command(no_args_is_help=True)(reproduce)


def reproduce(
    name: Annotated[
        str, typer.Argument(help="mini-sword, sd14-nudity, sd14-violence, sd3-nudity, or a protocol of yours (.yaml).")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder; runs/reproduce-NAME if not given.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Your copy of the model; the protocol's if not given.")
    ] = None,
    captions: Annotated[
        Path | None, typer.Option("--captions", help="COCO's captions, e.g. captions_val2014.json.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="COCO's pictures of that part, which FID is measured from.")
    ] = None,
    seed: Seed = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE over the protocol's settings. Repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="The plan, its costs and every file that must be at hand; runs nothing.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option("--results", help="A reproduction.json: check and show it, and run nothing.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Run a publication's protocol: pairs, DUO at every β, attacks, captions; and set ours beside what was published.

    Tolerances are part of the protocol, which is written down before the first stage. The same command goes on after a
    kill. With --results the exit code is 1, for CI, where a number differs by more than its tolerance, and where of
    the published numbers none could be compared.

    duo reproduce mini-sword --workers auto

    duo reproduce sd14-nudity --dry-run

    duo reproduce sd14-nudity --captions captions_val2014.json --images val2014 --set train.mixed_precision=fp16

    duo reproduce mini-sword --results runs/reproduce-mini-sword/reproduction.json
    """
    from ..reproduction.page import as_text, verdict_line
    from ..reproduction.plan import Brought, check_brought, plan_lines
    from ..reproduction.protocol import load_protocol
    from ..reproduction.reproduce import RESULTS, stages
    from ..reproduction.reproduce import reproduce as run
    from ..reproduction.results import is_reproduced, read_sent

    if dry_run and results is not None:
        raise DuoError("--dry-run plans a reproduction, --results reads one", hint="give one of them")
    protocol = load_protocol(name)
    if results is not None:
        others = {
            "-o": output, "--model": model, "--captions": captions, "--images": images, "--seed": seed,
            "--device": device, "--set": assign or None, "--workers": workers,
        }  # fmt: skip
        if said := [option for option, value in others.items() if value is not None]:
            hint = "leave them out, or leave --results out"
            raise DuoError("--results reads what is there, and runs nothing", got=", ".join(said), hint=hint)
        sent = read_sent(results, protocol)
        print(as_text(sent), end="")
        if not is_reproduced(sent):
            raise typer.Exit(1)
        return
    given: dict[str, Any] = flag_settings(assign, {"device": device})
    folder = output or Path("runs") / f"reproduce-{protocol.name}"
    brought = Brought(folder, model, seed, captions, images, given)
    if dry_run:
        print("\n".join(plan_lines(protocol, brought)))
        return
    check_brought(protocol, brought)
    share(workers, stages(protocol, brought), sys.argv[1:], device=str(given.get("device", "auto")))
    found = run(protocol, brought, say=say)
    say(f"reproduce: done → {folder / RESULTS}, {folder / 'reproduction.md'}")
    say(verdict_line(found))
