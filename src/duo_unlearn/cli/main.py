"""The command line: `duo`. Each command loads settings, calls a verb of the pipeline, and prints."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..errors import DuoError, Interrupted
from ..storage.files import printable
from . import adapter, arena, experiments, ledger, lists, look, reproduce, run, status
from .concepts import concepts
from .mini import mini
from .options import say
from .tables import print_error
from .workers import absence

app = typer.Typer(
    name="duo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Erase a concept from a text-to-image model, and measure that it is gone.",
    epilog="Start with: [bold]duo demo[/bold]",
)
for room in (run, status, look, arena, experiments, ledger, reproduce, adapter, lists):
    room.add_commands(app)
app.add_typer(concepts, name="concepts")
app.add_typer(mini, name="mini")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"duo_unlearn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Options of `duo` itself."""


def main() -> None:
    """Run the command line: errors in at most three lines, exit code 1 (2 for usage, 130 when interrupted)."""
    _prepare()
    try:
        app()
    except Interrupted as error:
        print_error(error)
        sys.exit(130)
    except DuoError as error:
        print_error(error)
        sys.exit(1)
    except OSError as error:
        if error.filename is None or error.strerror is None:  # no fault of a file
            raise
        name, hint = printable(Path(os.fsdecode(error.filename))), "check the path and its permissions"
        print_error(DuoError(f"cannot use {name}", got=error.strerror, hint=hint))
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch itself is not imported here
            raise
        hint = "`duo check RUN --fit GB` lists what fits; smaller batches; --mixed_precision bf16 (export: --precision)"
        print_error(DuoError("the device has too little memory", got=str(error).split(". ")[0], hint=hint))
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == 130:  # how Typer ends on Ctrl-C
            say("stopped; the same command goes on from what was saved")
        if not stop.code and (lacking := absence()) is not None:
            print_error(lacking)
            sys.exit(1)
        raise


def run_command(arguments: Sequence[str]) -> None:
    """Run one command inside this process; what it refuses is raised."""
    _prepare()
    app(list(arguments), standalone_mode=False)


def _prepare() -> None:
    from ..runs.machine import keep_freed_memory

    keep_freed_memory()
    if os.name == "nt":  # whose files and pipes take a few hundred characters, and “→” is none of them
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8")
    # Advice to programmers (a faster image processor, say) is no news to someone who types a command.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
