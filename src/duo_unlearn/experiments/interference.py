"""Adding adapters up, and measuring what they do to one another: each concept, and what must stay, before and after."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arena.evaluation import evaluate
from ..concepts.store import load_concept
from ..edits.files import StoredAdapter, compose, read_adapter
from ..edits.lora import read_provenance
from ..errors import DuoError
from ..records import Estimate
from ..runs.folder import Run
from ..session import Session
from ..settings.resolve import resolve_settings
from ..storage.files import read_json, sha256_of, write_json


def compose_runs(sources: Sequence[Path], weights: Sequence[float], folder: Path) -> list[StoredAdapter]:
    """Write the exact sum of the adapters of runs or adapter folders to FOLDER/adapter; gives the parts."""
    if len(sources) < 2:
        raise DuoError("composing takes two adapters or more", got=f"{len(sources)}", hint="duo compose runs/a runs/b")
    if weights and len(weights) != len(sources):
        raise DuoError(
            "there must be one weight an adapter", got=f"{len(weights)} for {len(sources)}", hint="repeat --weight"
        )
    parts = [read_adapter(source) for source in sources]
    known = read_provenance(Run(folder).adapter)
    hashes = [sha256_of(part.path) for part in parts]
    if Run(folder).adapter.exists() and [part.get("sha256") for part in known.get("parts", [])] != hashes:
        raise DuoError(f"{folder} holds another adapter", hint="choose another --output")
    compose(parts, list(weights) or [1.0] * len(parts), Run(folder).adapter)
    return parts


def check_runs(sources: Sequence[Path]) -> None:
    """Fail for a source whose concept could not be measured, before anything is done."""
    for source in sources:
        if not Run(source).settings.exists():
            raise DuoError(f"{source} is no run folder, so its concept cannot be measured", hint="--no-measure")
        load_concept(resolve_settings({"output": str(source)}).concept)


def measure(
    sources: Sequence[Path], folder: Path, given: dict[str, Any], *, quiet: bool = False
) -> list[dict[str, Any]]:
    """Evaluate the composed adapter on the concept of each run, and set it beside that run's own adapter.

    Writes FOLDER/N-CONCEPT/ (a run folder each) and FOLDER/interference.json: rows of {concept, metric, prompts, n and
    value with interval of: original, alone, composed}. A run without results has no "alone".
    """
    rows: list[dict[str, Any]] = []
    for number, source in enumerate(sources):
        run, settings = Run(source), resolve_settings({"output": str(source)})
        own = folder / f"{number + 1}-{load_concept(settings.concept).name}"
        told = settings.model_dump(mode="json", exclude={"pairs": {"folder"}}) | {"output": str(own)}
        told["evaluate"] |= {"inversion_prompts": 0} | given
        session = Session(resolve_settings(told), quiet=quiet)
        with session.run.lock():
            shutil.copytree(Run(folder).adapter, session.run.adapter, dirs_exist_ok=True)
            composed, _ = evaluate(session)
        alone = [Estimate(**e) for e in read_json(run.results)["estimates"]] if run.results.exists() else []
        rows += _rows(settings.concept, composed, alone)
    write_json(folder / "interference.json", {"version": 1, "rows": rows})
    return rows


def _rows(concept: str, composed: Sequence[Estimate], alone: Sequence[Estimate]) -> list[dict[str, Any]]:
    erased = {(e.metric, e.prompts): e for e in alone if e.model == "erased"}
    original = {(e.metric, e.prompts): e for e in composed if e.model == "original"}
    rows = []
    for estimate in composed:
        if estimate.model == "erased":
            key = (estimate.metric, estimate.prompts)
            found = {"original": original.get(key), "alone": erased.get(key), "composed": estimate}
            values = {name: _short(e) for name, e in found.items() if e is not None}
            rows.append({"concept": concept, "metric": estimate.metric, "prompts": estimate.prompts, **values})
    return rows


def _short(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
