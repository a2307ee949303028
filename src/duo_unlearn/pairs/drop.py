"""Pairs that a person leaves out of training, or takes back: what `duo drop` and the page of `duo look` both call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import DuoError
from ..records import Pair
from ..runs.folder import Run
from .manifest import set_keep

BY_HAND: Final = "dropped by hand"
"""The reason where none was given."""


def drop(run: Run, names: Sequence[str], reason: str | None = None, *, undo: bool = False) -> list[Pair]:
    """Leave pairs of a run out of training, or with `undo` use them again; gives all its pairs. No file is deleted.

    DuoError: the run has no pairs or none of that name, or another process holds it.
    """
    if not run.pairs.is_dir():
        raise DuoError(f"{run.folder} holds no pairs", hint="run `duo pairs` first")
    with run.lock():
        return set_keep(run.pairs, names, undo, None if undo else reason or BY_HAND)
