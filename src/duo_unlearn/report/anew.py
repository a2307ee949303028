"""What a run holds of an edit that was made anew since: a page tells none of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..edits.provenance import read_provenance, seen_digest
from ..errors import DuoError
from ..runs.folder import Run
from ..runs.results import Results
from ..storage.files import read_object


def changed_systems(run: Run, results: Results | None) -> set[str]:
    """The systems of results.json of whose edits one was made anew since."""
    systems = results.systems if results is not None else []
    anew = ((one["name"], [_is_anew(run, edit["name"], edit["sha256"]) for edit in one["edits"]]) for one in systems)
    return {str(name) for name, edits in anew if any(edits)}


def current_sweeps(run: Run) -> dict[str, dict[str, Any]]:
    """What `duo sweep` wrote, but for strengths of an edit that was made anew since, and β on other pairs than its."""
    found = {}
    for kind in ("beta", "strength"):
        if (path := run.sweep / f"{kind}.json").exists():
            content = read_object(path, "duo sweep")
            if not _is_of_another(run, content):
                found[kind] = content
    return found


def _is_of_another(run: Run, sweep: Mapping[str, Any]) -> bool:
    """Whether a sweep says nothing of the run's edit as it is now. An older version's says not what it is of."""
    name = str(sweep.get("edit"))
    if "sha256" in sweep:
        return _is_anew(run, name, sweep["sha256"])
    with contextlib.suppress(DuoError):
        saw = read_provenance(run.edit(name)).get("pairs")
        return "pairs" in sweep and saw is not None and seen_digest(saw) != sweep["pairs"]
    return False


def _is_anew(run: Run, name: str, sha256: object) -> bool:
    """Whether the edit of a name is another one now. A broken edit is told where it is used."""
    with contextlib.suppress(DuoError):
        return read_provenance(run.edit(name)).get("sha256") not in (None, sha256)
    return False
