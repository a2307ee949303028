"""Adding adapters up, and measuring what they do to one another: each concept, and what must stay, before and after."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..arena.sharing import share_edit
from ..arena.stages import evaluate
from ..concepts.store import load_concept
from ..edits.compose import compose
from ..edits.files import as_lora, read_edit, why_no_lora
from ..edits.lora import LoraEdit
from ..edits.provenance import edit_hash, edit_names, read_provenance
from ..errors import DuoError
from ..records import ORIGINAL, Estimate
from ..runs.folder import Run
from ..runs.results import read_results
from ..session import Session
from ..settings.resolve import for_another_run, resolve_settings
from ..settings.source import EditSource, edit_source
from ..settings.tree import merge
from ..storage.files import write_json

COMPOSED: Final = "composed"
"""The name of the sum, as an edit and as a system."""
INTERFERENCE: Final = "interference.json"


def compose_runs(sources: Sequence[Path], weights: Sequence[float], folder: Path) -> list[LoraEdit]:
    """Write the exact sum of the edits of runs, or of edits by themselves, to FOLDER/edits/composed; gives the parts.

    Adapters are added up, and low-rank changes of the denoiser, each of which equals one. Another kind is a DuoError.
    """
    if len(sources) < 2:
        raise DuoError("composing takes two adapters or more", got=f"{len(sources)}", hint="duo compose runs/a runs/b")
    return add_up(sources, weights, folder)


def add_up(sources: Sequence[Path], weights: Sequence[float], folder: Path) -> list[LoraEdit]:
    """Write the exact weighed sum of one edit or more to FOLDER/edits/composed; gives the parts."""
    if weights and len(weights) != len(sources):
        got = f"{len(weights)} for {len(sources)}"
        raise DuoError("there must be one weight an adapter", got=got, hint="repeat --weight")
    if odd := [weight for weight in weights if not math.isfinite(weight)]:
        raise DuoError("a weight must be a finite number", got=f"{odd[0]:g}", hint="for example --weight 0.8")
    parts = [_part(edit_source(source)) for source in sources]
    target = Run(folder).edit(COMPOSED)
    _check_target(Run(folder), [part.sha256 for part in parts])
    before = None
    with contextlib.suppress(DuoError):  # none, or a broken one, is made
        before = edit_hash(target)
    compose(parts, list(weights) or [1.0] * len(parts), target)
    if edit_hash(target) != before:  # the same parts by other weights are another sum, which nobody has measured
        (folder / INTERFERENCE).unlink(missing_ok=True)
    return parts


def _part(source: EditSource) -> LoraEdit:
    edit = read_edit(source.place, source.name)
    if (reason := why_no_lora(edit)) is not None:
        hint = "adapters and low-rank changes of the denoiser; any two edits act one after the other as A+B"
        raise DuoError(f"the edit {source.place} cannot be added to others exactly", got=reason, hint=hint)
    return as_lora(edit)


def _check_target(run: Run, hashes: Sequence[str]) -> None:
    """Fail for a folder that holds something else than the sum of these edits."""
    known = [part.get("sha256") for part in read_provenance(run.edit(COMPOSED)).get("parts", [])]
    others = [name for name in edit_names(run.edits) if name != COMPOSED]
    if others or (run.edit(COMPOSED).exists() and known != list(hashes)):
        got = ", ".join(others) or "the sum of others"
        raise DuoError(f"{run.folder} holds another adapter", got=got, hint="choose another --output")


def check_runs(sources: Sequence[Path]) -> None:
    """Fail for a source whose concept could not be measured, before anything is done."""
    for source in sources:
        if not Run(source).settings.exists():
            edit_source(source)  # what is not there at all is told as that
            raise DuoError(f"{source} is no run folder, so its concept cannot be measured", hint="--no-measure")
        load_concept(resolve_settings({"output": str(source)}).concept)


def measure(
    sources: Sequence[Path], folder: Path, counts: Mapping[str, int], *, quiet: bool = False
) -> list[dict[str, Any]]:
    """Evaluate the sum on the concept of each run, and set it beside the original and that run's own edit.

    counts: of prompts, as the settings under `evaluate` have them. Writes FOLDER/N-CONCEPT/ (a run folder each) and
    FOLDER/interference.json: rows of {concept, metric, scenario, contract} and of the number of each "original",
    "alone" and "composed": {system, value, low, high, n}. A run without results of its edit has no "alone".
    """
    rows: list[dict[str, Any]] = []
    for number, source in enumerate(sources):
        settings = resolve_settings({"output": str(source)})
        own = folder / f"{number + 1}-{load_concept(settings.concept).name}"
        known = for_another_run(settings)
        smaller = {"output": str(own), "evaluate": {"inversion_prompts": 0, **counts}}
        session = Session(resolve_settings(merge(known, smaller)), quiet=quiet)
        with session.run.lock(shared=True):
            with session.run.claim("share", wait=True):
                share_edit(Run(folder).edit(COMPOSED), session.run.edit(COMPOSED))
            together = evaluate(session, [session.system(COMPOSED)]).results.estimates
        rows += _rows(settings.concept, together, _alone(source))
    write_json(folder / INTERFERENCE, {"version": 2, "rows": rows})
    return rows


def _alone(source: Path) -> list[Estimate]:
    """What a run measured of its own edit by itself, as that is now."""
    run = Run(source)
    if not run.results.exists():
        return []
    session = Session(resolve_settings({"output": str(source)}))
    own = session.system(edit_source(source).name)
    estimates = read_results(run).estimates
    return [e for e in estimates if e.attack is None and (e.system, e.sha256) == (own.name, own.sha256)]


def _rows(concept: str, together: Sequence[Estimate], alone: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Each number of the sum beside those of the original and of the run's own edit that are of the same."""
    beside = {
        "original": {_place(e): e for e in together if e.system == ORIGINAL},
        "alone": {_place(e): e for e in alone},
        "composed": {_place(e): e for e in together if e.system == COMPOSED},
    }
    rows = []
    for place in beside["composed"]:
        metric, scenario, contract = place
        row = {"concept": concept, "metric": metric, "scenario": scenario, "contract": contract}
        rows.append(row | {name: _number(by[place]) for name, by in beside.items() if place in by})
    return rows


def _place(e: Estimate) -> tuple[str, str, str]:
    return e.metric, e.scenario, e.contract


def _number(e: Estimate) -> dict[str, Any]:
    return {"system": e.system, "value": e.value, "low": e.low, "high": e.high, "n": e.n}
