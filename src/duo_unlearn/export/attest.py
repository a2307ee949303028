"""From a run and an export of one of its edits to the evidence: each fact once, as it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..concepts.store import load_concept
from ..edits.interface import Edit
from ..edits.sketch import Sketch
from ..erasers.registry import ERASERS
from ..errors import DuoError
from ..records import Estimate
from ..runs.results import Results, read_results
from ..session import VERSIONED
from ..settings.source import EditSource
from ..settings.tree import Settings
from ..storage.files import digest
from ..storage.forms import faults
from ..system import EditFile, System
from .evidence import Measurement, known_attacks, measurement_of
from .forms import BaseModelOf, Below, ConceptOf, EditOf, Evidence, ExportOf, PairsOf, Sampling


class Facts(NamedTuple):
    """What is known once an export is written. fingerprint: of the base. change: the sketch of what it changes."""

    export: ExportOf
    fingerprint: str
    change: Sketch


class Measured(NamedTuple):
    """What the run measured of an edit by itself and of the original; systems: these two, the edit last."""

    results: Results
    systems: list[System]
    estimates: list[Estimate]


def measured_of(place: EditSource, floors: Sequence[Edit], edit: Edit) -> Measured | None:
    """What the run measured of this very edit by itself; None where it measured nothing of it."""
    if place.run is None or not place.run.results.exists():
        return None
    below = [EditFile(floor.name, place.run.edit(floor.name), floor.sha256) for floor in floors]
    own = System((*below, EditFile(edit.name, place.place, edit.sha256)))
    results = read_results(place.run)
    known = {(system.name, system.sha256) for system in (System(), own)}
    if not any(estimate.sha256 == own.sha256 for estimate in results.estimates):
        return None
    return Measured(results, [System(), own], [e for e in results.estimates if (e.system, e.sha256) in known])


def evidence_of(
    place: EditSource, floors: Sequence[Edit], edit: Edit, settings: Settings, measured: Measured | None, facts: Facts
) -> Evidence:
    """The evidence of an export. What a run holds that has no place in it, e.g. a score of NaN, is a DuoError."""
    try:
        return _evidence(place, floors, edit, settings, measured, facts)
    except ValidationError as error:
        got = "; ".join(faults(error, Evidence.model_fields)[:3])
        raise DuoError("the run cannot be put into a statement", got=got, hint="duo check RUN") from error


def _evidence(
    place: EditSource, floors: Sequence[Edit], edit: Edit, settings: Settings, measured: Measured | None, facts: Facts
) -> Evidence:
    record = place.run.read_record() if place.run is not None else {}
    found = Measurement()
    if measured is not None and place.run is not None:
        found = measurement_of(place.run, measured.results, measured.systems)
    provenance = edit.provenance
    return Evidence(
        version=1,
        base=BaseModelOf(
            name=str(provenance.get("model", settings.model)),
            fingerprint=facts.fingerprint,
            resolution=settings.resolution,
        ),
        concept=_concept(provenance, settings, record),
        pairs=_pairs(provenance),
        edit=EditOf(
            name=edit.name,
            kind=edit.kind,
            sha256=edit.sha256,
            eraser=_text(provenance.get("eraser")),
            method=method_of(edit),
            settings=dict(provenance.get("settings", {})),
            seed=provenance.get("seed"),
            made_by=_text(provenance.get("made_by")),
            below=[Below(name=floor.name, sha256=floor.sha256) for floor in floors],
        ),
        export=facts.export,
        change=facts.change,
        sampling=_sampling(settings, measured),
        known=known_attacks(),
        versions=record.get("versions") or {name: version(name) for name in VERSIONED},
        machine=record.get("machine"),
        **found._asdict(),
    )


def method_of(edit: Edit) -> str | None:
    """How the edit was made, and on top of what; None where its name does not say."""
    if edit.name not in ERASERS.names():
        return None
    below = [str(one["name"]) for one in edit.provenance.get("on", [])]
    titles = [ERASERS.get(name).title if name in ERASERS.names() else name for name in below]
    return "; on top of ".join([ERASERS.get(edit.name).title, *titles])


def _concept(provenance: Mapping[str, Any], settings: Settings, record: Mapping[str, Any]) -> ConceptOf:
    name = str(provenance.get("concept", settings.concept))
    try:
        concept = load_concept(settings.concept)
    except DuoError:
        return ConceptOf(name=name, digest=None, sensitive=bool(record.get("sensitive", True)))
    if concept.erased != name:  # of an edit by itself the settings may be of another concept
        return ConceptOf(name=name, digest=None, sensitive=True)
    return ConceptOf(name=name, digest=digest(concept.model_dump(mode="json")), sensitive=concept.sensitive)


def _pairs(provenance: Mapping[str, Any]) -> PairsOf | None:
    pairs = provenance.get("pairs")
    return PairsOf(count=len(pairs), digest=digest(pairs)) if isinstance(pairs, list) else None


def _sampling(settings: Settings, measured: Measured | None) -> Sampling:
    evaluate = settings.evaluate
    return Sampling(
        seed=settings.seed,
        steps=evaluate.steps,
        guidance=evaluate.guidance,
        batch=evaluate.batch,
        precision=settings.train.mixed_precision,
        quantize=settings.quantize,
        checkpoint_config=settings.checkpoint_config,
        quick=measured is not None and measured.results.quick,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
