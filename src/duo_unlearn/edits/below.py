"""Edits that were made on top of others: what lies below one, and all of them at work together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DuoError
from ..families.interface import Model
from .files import read_edit
from .interface import Edit


def edits_below(edit: Edit, folder: Path | None) -> list[Edit]:
    """The edits that an edit was made on top of, in order. folder: holds the run's edits; None: there is no run.

    One that is not there, or was made anew since, is a DuoError.
    """
    found = []
    for one in edit.provenance.get("on", []):
        name, sha256 = str(one["name"]), str(one["sha256"])
        if folder is None or not (folder / name).is_dir():
            hint = f"name the run folder, which holds {name} too"
            raise DuoError(f"the edit {edit.name} acts on top of {name}", got="an edit without it", hint=hint)
        below = read_edit(folder / name, name)
        if below.sha256 != sha256:
            got = f"{name} was made anew since"
            raise DuoError(f"the edit {edit.name} acts on top of another {name}", got=got, hint="duo train RUN")
        found.append(below)
    return found


def check_strength(below: Sequence[Edit], strength: float) -> None:
    """Fail where an edit alone would have another strength than what it was made on."""
    if below and strength != 1.0:
        got = f"--strength {strength:g}, with {' and '.join(edit.name for edit in below)} below it"
        raise DuoError("an edit on another one has its own strength alone", got=got, hint="--strength 1")


@contextlib.contextmanager
def together(edits: Sequence[Edit], model: Model) -> Iterator[None]:
    """The edits act inside the block, in order."""
    with contextlib.ExitStack() as stack:
        for edit in edits:
            stack.enter_context(edit.on(model))
        yield
