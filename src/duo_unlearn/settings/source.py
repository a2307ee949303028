"""From what a user names, a run folder or an edit by itself, to the edit and the settings that it belongs with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..edits.provenance import CHANGES, WEIGHTS, edit_names
from ..erasers.wraps import edit_name, is_round
from ..errors import DuoError
from ..runs.folder import Run
from .resolve import resolve_settings
from .tree import Settings, read_settings


class EditSource(NamedTuple):
    """Where an edit lies. name: within a system. place: its folder or file. run: the run that holds it, if one does."""

    name: str
    place: Path
    run: Run | None


def edit_source(source: Path, name: str | None = None) -> EditSource:
    """The edit of a run folder, or of an edit's own folder or file.

    name: which of a run's edits; None: that of the run's eraser, or the only one that there is. A folder without an
    edit is a DuoError that lists what there is.
    """
    if source.is_file() or any((source / file).is_file() for file in (WEIGHTS, CHANGES)):
        if name is not None:
            raise DuoError(f"{source} is one edit", got=f"--edit {name}", hint="name the run folder with --edit")
        folder = (source.parent if source.is_file() else source).resolve()
        run = Run(folder.parent.parent) if folder.parent.name == "edits" else None
        return EditSource(folder.name, source, run if run is not None and run.settings.exists() else None)
    run = Run(source)
    run.check_form()
    there = edit_names(run.edits)
    chosen = name or _usual(run, there)
    if chosen not in there:
        got = f"no {chosen} among {', '.join(there)}" if there else None
        if not source.exists():
            got = "no such file or folder"
        hint = "run `duo train` or `duo erase` first; or name the edit's folder or its safetensors file"
        raise DuoError(f"there is no edit in {source}", got=got, hint=f"--edit {there[0]}" if there else hint)
    return EditSource(chosen, run.edit(chosen), run)


def _usual(run: Run, there: list[str]) -> str:
    """The name of the edit that is meant where none is named."""
    # Settings as they are written: the concept may be a file that is gone, and is not needed for this.
    edit = ""
    if run.settings.exists():
        known = read_settings(run.settings)
        edit = edit_name(known.get("eraser", Settings().eraser), known.get("wrap"))
    whole = [name for name in there if not is_round(name, edit)]
    return whole[0] if len(whole) == 1 and edit not in there else edit or "edit"


def settings_of(source: EditSource, provenance: Mapping[str, Any], model: str | None = None) -> Settings:
    """The settings of the run that holds an edit; for an edit alone the defaults for its concept and base.

    provenance: of the edit. model: the base, where neither the run nor the provenance names the right one.
    """
    named = {"model": model} if model is not None else {}
    if source.run is not None and source.run.settings.exists():
        return resolve_settings({"output": str(source.run.folder)} | named)
    known = {"model": provenance.get("model"), "concept": provenance.get("concept")} | named
    try:
        return resolve_settings({key: value for key, value in known.items() if isinstance(value, str)})
    except DuoError:  # a concept file that is elsewhere: any prompts will do for comparing images
        return resolve_settings({"model": known["model"]} if isinstance(known.get("model"), str) else {})
