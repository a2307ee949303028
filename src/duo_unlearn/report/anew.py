"""What a run holds of an edit that was made anew since: a page tells none of it."""

from __future__ import annotations

import contextlib
from typing import Any

from ..edits.provenance import read_provenance
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
    """What `duo sweep` wrote, but for strengths of an edit that was made anew since."""
    found = {}
    for kind in ("beta", "strength"):
        if (path := run.sweep / f"{kind}.json").exists():
            content = read_object(path, "duo sweep")
            if "edit" not in content or not _is_anew(run, str(content["edit"]), content.get("sha256")):
                found[kind] = content
    return found


def _is_anew(run: Run, name: str, sha256: object) -> bool:
    """Whether the edit of a name is another one now. A broken edit is told where it is used."""
    with contextlib.suppress(DuoError):
        return read_provenance(run.edit(name)).get("sha256") not in (None, sha256)
    return False
