"""From what a user gives to the settings of a run, without loading a model; and `duo check`: every fault at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..concepts.store import load_concept
from ..detectors.interface import check_detector
from ..erasers.duo.paper import explain, paper_settings
from ..errors import DuoError
from ..families.identify import family_of, model_faults
from ..runs.folder import Run
from .tree import Settings, as_yaml, merged, read_yaml, resolve


def resolve_settings(given: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Defaults, what the concept recommends for the model's family, what the run folder says, the file, what is given.

    A run folder keeps its settings, so a later stage needs to be told nothing but the folder.
    """
    kept, *told = _layers(read_yaml(file, "settings file") if file is not None else {}, dict(given or {}))
    chosen = resolve(kept, *told)
    concept, family = load_concept(chosen.concept), family_of(chosen.model)
    if chosen.recipe == "paper":
        new = merged(*told)
        given_beta = "beta" in merged(kept, *told).get("train", {})
        base = paper_settings(concept, family, chosen.train.beta if given_beta else None)
        if "recipe" in new or "beta" in new.get("train", {}):
            # The recipe is asked for now: what the run had of its numbers gives way, but for β.
            kept = {**kept, "train": {k: v for k, v in kept.get("train", {}).items() if k not in base["train"]}}
    else:
        recommended = concept.recommended.get(family)
        base = recommended.settings if recommended else {}
    # Pairs that a user brings need no words, so captions are the user's own choice there.
    wordless = {"train": {"captions": "none"}} if chosen.pairs.folder is not None else {}
    return resolve(base, wordless, kept, *told)


def _layers(file: Mapping[str, Any], given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run is told, weakest first: its folder's settings, the file, what is given."""
    return [_kept(resolve(file, given).output), file, given]


def _kept(output: Path) -> dict[str, Any]:
    """The settings of a run that is in the folder already; the folder itself may have been moved."""
    path = Run(output).settings
    found = read_yaml(path, "run's settings") if path.exists() else {}
    return {key: value for key, value in found.items() if key != "output"}


def describe(settings: Settings) -> str:
    """The settings as resolved, as YAML, and where the recommended ones come from, as a comment."""
    family = family_of(settings.model)
    recommended = load_concept(settings.concept).recommended.get(family)
    source = recommended.source if recommended else "the package's defaults (the authors' for nudity on SD1.4)"
    if settings.recipe == "paper":
        recipe = explain(family, settings.train)
        source = f"the authors' scripts: {recipe}"
    if _kept(settings.output):
        source += f"; then those of the run in {settings.output}"
    return f"# family {family}; recommended settings: {source}\n{as_yaml(settings)}"


def find_faults(given: Mapping[str, Any], file: Path | None = None) -> tuple[Settings | None, list[DuoError]]:
    """Everything that is wrong with a run before it starts: settings, concept, model, pairs, output. Offline."""
    found: list[DuoError] = []

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except DuoError as error:
            found.append(error)
            return None

    from_file = attempt(lambda: read_yaml(file, "settings file")) or {} if file is not None else {}
    layers = attempt(lambda: _layers(from_file, given))
    settings = attempt(lambda: resolve(*layers)) if layers is not None else None
    told = merged(from_file, given)
    known = settings or Settings.model_construct(
        **{name: told[name] for name in ("model", "concept") if isinstance(told.get(name), str)}
    )
    concept, (faults, family) = attempt(lambda: load_concept(known.concept)), model_faults(known.model)
    found += faults
    if concept is not None and family is not None:
        attempt(lambda: check_detector(concept.detector.name, family))
    if settings is None:
        return None, found
    if settings.quantize != "no" and family is not None:
        from ..families.load import check_quantize

        attempt(lambda: check_quantize(family, settings.model))
    if settings.pairs.folder is not None:
        from ..pairs.own_pairs import check_pairs

        attempt(lambda: check_pairs(settings.pairs.folder))
    if settings.evaluate.reference is not None:
        from ..metrics.fidelity import reference_pictures

        attempt(lambda: reference_pictures(settings.evaluate.reference))
    attempt(lambda: _writable(settings.output))
    return (None if found else attempt(lambda: resolve_settings(given, file))), found


def _writable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise DuoError(f"the output {folder} is a file", hint="choose another --output")
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise DuoError(f"the output folder {folder} cannot be written", hint="choose another --output")
    if folder.exists():
        with Run(folder).lock():
            pass
