"""The command that serves a run's page."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from ..errors import DuoError
from .options import RunFolder, say


def add_commands(app: typer.Typer) -> None:
    """Register it."""
    app.command()(look)


def look(
    run: RunFolder,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="8765 when not given, or a free one.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Another address needs --allow-remote.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines reach the page. Nothing is encrypted.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser", help="Open it in a browser.")] = False,
) -> None:
    """Look at a run on a local page: pairs, attempts, labels, and a training while it goes on.

    The first line that is printed is the address, with a token in it. The page is for this machine alone.

    duo look runs/sword

    duo look runs/sword --port 9000 --browser
    """
    if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        problem, hint = "the page needs packages that are not installed", 'pip install "duo_unlearn[ui]"'
        raise DuoError(problem, got=f"no {', no '.join(missing)}", hint=hint)
    from ..look.serve import serve
    from ..runs.folder import Run

    serve(Run(run), host=host, port=port, remote=allow_remote, browser=browser, say=say)
