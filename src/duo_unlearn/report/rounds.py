"""The rounds of a training in a report: DSR by attack after each, on training prompts."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from ..edits.provenance import read_provenance
from ..errors import DuoError
from ..records import Estimate
from ..runs.folder import Run
from ..runs.rounds import Round, read_rounds
from .words import attack_order


class RoundsRow(NamedTuple):
    """An attack, and what it gave after each round; None: no picture had a verdict."""

    attack: str
    cells: list[Estimate | None]


class RoundsTable(NamedTuple):
    """The rounds of one edit. numbers: of the rounds. contracts: of who judged, one where all rounds had the same."""

    edit: str
    numbers: list[int]
    rows: list[RoundsRow]
    contracts: list[str]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        rows = [{"attack": row.attack, "dsr": [e and e.as_json() for e in row.cells]} for row in self.rows]
        return {"edit": self.edit, "rounds": self.numbers, "rows": rows}


def rounds_tables(run: Run) -> list[RoundsTable]:
    """A table an edit that was trained in several rounds. Rounds of another training than that of now are left out."""
    found = []
    for path in sorted(run.rounds.glob("*.json")):
        rounds = [one for one in read_rounds(run, path.stem) if _is_current(run, one)]
        if len(rounds) > 1 and rounds[-1].edit == path.stem:
            found.append(_table(path.stem, rounds))
    return found


def _is_current(run: Run, one: Round) -> bool:
    """Whether the round's edit is the one that was attacked."""
    with contextlib.suppress(DuoError):
        return bool(read_provenance(run.edit(one.edit)).get("sha256") == one.sha256)
    return False


def _table(edit: str, rounds: list[Round]) -> RoundsTable:
    told = [{str(e.attack): e for e in one.dsr} for one in rounds]
    attacks = sorted({name for known in told for name in known}, key=attack_order)
    rows = [RoundsRow(name, [known.get(name) for known in told]) for name in attacks]
    contracts = dict.fromkeys(e.contract for one in rounds for e in one.dsr)
    return RoundsTable(edit, [one.number for one in rounds], rows, list(contracts))
