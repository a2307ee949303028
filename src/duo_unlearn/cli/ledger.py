"""The command of the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import DuoError
from .options import AsJson, say
from .tables import print_table

if TYPE_CHECKING:
    from ..experiments.ledger import Entry


def add_commands(app: typer.Typer) -> None:
    """Register it."""
    app.command()(ledger)


TOGETHER: Final = {
    "--slices": (),
    "--without": ("--output", "--weight"),
    "--pair": ("--json",),
}
"""What the command does, and the options that belong to it. Without any of these it lists, and takes --json alone."""


def _check_together(given: Sequence[str]) -> None:
    """Fail for options that mean nothing beside one another, which would be left unread."""
    doing = next((name for name in TOGETHER if name in given), None)
    allowed = (doing, *TOGETHER[doing]) if doing is not None else ("--json",)
    if strange := [name for name in given if name not in allowed]:
        if doing is None:
            raise DuoError(f"{strange[0]} is of the sum of what is left", got="no --without", hint="--without FOLDER")
        hint = "one command each" if strange[0] in (*TOGETHER, "--json") else f"leave {strange[0]} out"
        raise DuoError(f"{doing} and {strange[0]} mean nothing together", got=" ".join(given), hint=hint)


def ledger(
    sources: Annotated[list[Path], typer.Argument(help="Run folders, or folders of edits.")],
    slices: Annotated[
        int | None,
        typer.Option(
            "--slices",
            help="Train the run's pairs as so many edits, each on a slice of its own; after a drop, that slice again.",
        ),
    ] = None,
    pair: Annotated[
        str | None, typer.Option("--pair", help="Which edits saw this pair: its name, or digits of an image's SHA-256.")
    ] = None,
    without: Annotated[
        list[Path] | None, typer.Option("--without", help="Leave this one out, and what stands on it; repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder of the sum of what is left.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="The weight of each edit of the ledger, in order; 1 each.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which edit saw which pairs, and what is left when one is taken out. It deletes data; it erases no concept.

    Edits that are trained apart can be left out exactly: the sum of the others is, bit for bit, what it would have been
    had the one never been there. Where a pair must go, the edits that saw it are trained again without it.

    duo ledger runs/sword runs/balloon

    duo ledger runs/sword --slices 4

    duo ledger runs/sword/slices/* --pair 0003

    duo ledger runs/sword/slices/* --without runs/sword/slices/2 -o runs/rest
    """
    from ..experiments.ledger import namesakes
    from ..several import read_ledger, slice_run, sum_of_rest

    given = {
        "--slices": slices is not None, "--pair": pair is not None, "--without": bool(without),
        "--output": output is not None, "--weight": bool(weight), "--json": as_json,
    }  # fmt: skip
    _check_together(tuple(name for name, is_given in given.items() if is_given))
    if slices is not None:
        if len(sources) != 1:
            raise DuoError("slices are of one run", got=f"{len(sources)} sources", hint="duo ledger RUN --slices 4")
        for folder in slice_run(sources[0], slices, say=say):
            say(f"  {folder}")
        return
    if without:
        if output is None:
            raise DuoError("the sum of what is left needs a folder", hint="-o FOLDER")
        left = sum_of_rest(sources, without, output, weights=weight or [])
        say(f"ledger: {len(left)} of {len(sources)} edits are left → {output}")
        return
    entries = read_ledger(sources, pair)
    if as_json:
        print(json.dumps([entry.as_json() for entry in entries], indent=1))
        return
    title = (
        "trained on these pairs" if pair is None else f"saw the pair {pair}, or stand on what did: train these again"
    )
    _print_entries(title, entries)
    if pair is not None and any(entry.bank for entry in entries):
        say("a bank that was filled on an edit of this table is filled anew first: duo bank")
    if pair is not None and (found := namesakes(entries, pair)):
        say(f"{len(found)} pairs of these runs are named {pair}; --pair {' or --pair '.join(found)} means one alone")


def _print_entries(title: str, entries: Sequence[Entry]) -> None:
    """A row an edit, with a column for banks where an edit read one."""
    columns = ["edit of", "name", "concept", "pairs", "SHA-256", "on top of"]
    rows = [
        [str(e.source), e.edit, e.concept, str(len(e.pairs)), e.sha256[:16], _short(e.on), _short(e.bank)]
        for e in entries
    ]
    if any(entry.bank for entry in entries):
        columns.append("bank from attacks on")
    print_table(title, columns, [row[: len(columns)] for row in rows])


def _short(hashes: Sequence[str]) -> str:
    return ", ".join(one[:16] for one in hashes) or "–"
