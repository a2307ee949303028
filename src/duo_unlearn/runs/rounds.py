"""How attacks on each round of an edit went, on disk: rounds/NAME.json, and the captions that they found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ..records import Estimate
from .attempts import read_derived, set_broken_aside, write_sealed
from .folder import Run
from .results import estimate_of

VERSION: Final = 1


class Round(NamedTuple):
    """One round. number: from 1. edit, sha256: its edit. system: that was attacked, the edit and what lies below it.

    key: what decides the attacks and their verdicts. bank: the hash of the file of captions that it left; None: the
    last round leaves none. dsr: an estimate an attack.
    """

    number: int
    edit: str
    sha256: str
    system: str
    key: str
    bank: str | None
    dsr: list[Estimate]


def rounds_file(run: Run, edit: str) -> Path:
    """Where the rounds of an edit are told. edit: the name of the last one."""
    return run.rounds / f"{edit}.json"


def bank_file(run: Run, round_edit: str) -> Path:
    """Where the captions lie that attacks on a round's edit found, with those of the rounds before."""
    return run.rounds / f"{round_edit}.safetensors"


def write_rounds(run: Run, edit: str, rounds: Sequence[Round]) -> None:
    """Write the rounds of an edit, with a hash over them."""
    entries = [{**one._asdict(), "dsr": [estimate.as_json() for estimate in one.dsr]} for one in rounds]
    write_sealed(rounds_file(run, edit), {"version": VERSION, "rounds": entries})


def read_rounds(run: Run, edit: str) -> list[Round]:
    """The rounds of an edit, in order; none where there is no file, or where it was broken and set aside."""
    path = rounds_file(run, edit)
    content = read_derived(path)
    if content is None:
        return []
    try:
        return [Round(**{**one, "dsr": [estimate_of(e) for e in one["dsr"]]}) for one in content["rounds"]]
    except (TypeError, KeyError, ValueError) as error:
        set_broken_aside(path, str(error))
        return []
