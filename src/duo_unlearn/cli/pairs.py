"""`duo drop`: leaving pairs out of training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DuoError


def drop(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    names: Annotated[list[str], typer.Argument(help="Pairs, as the contact sheet names them.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Why; stored beside the pair.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Use the pairs again.")] = False,
) -> None:
    """Leave pairs out of training, or take them back; no file is deleted.

    duo drop runs/sword 0003 0017 --reason "the hand is cut off"
    """
    from ..pairs.manifest import set_keep
    from ..runs.folder import Run

    folder = Run(run)
    if not folder.pairs.is_dir():
        raise DuoError(f"{run} holds no pairs", hint="run `duo pairs` first")
    with folder.lock():
        pairs = set_keep(folder.pairs, names, undo, None if undo else reason or "dropped by hand")
    print(f"pairs: {sum(pair.keep for pair in pairs)} of {len(pairs)} kept", file=sys.stderr)
    if folder.checkpoint.exists():
        print(
            f"an adapter that other pairs trained is kept; to train anew, delete {folder.checkpoint.parent}",
            file=sys.stderr,
        )
