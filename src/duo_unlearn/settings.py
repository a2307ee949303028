"""From what a user gives to the settings of a run, without loading a model; and `duo check`: every fault at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .concepts.store import load_concept
from .config import Settings, as_yaml, read_yaml, resolve
from .errors import DuoError
from .families.kinds import family_of


def resolve_settings(given: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Defaults, then what the concept recommends for the model's family, then the file, then what is given."""
    layers = [read_yaml(file, "settings file") if file is not None else {}, dict(given or {})]
    chosen = resolve(*layers)
    recommended = load_concept(chosen.concept).recommended.get(family_of(chosen.model))
    # Pairs that a user brings need no words, so captions are the user's own choice there.
    wordless = {"train": {"captions": "none"}} if chosen.pairs.folder is not None else {}
    return resolve(recommended.settings if recommended else {}, wordless, *layers)


def describe(settings: Settings) -> str:
    """The settings as resolved, as YAML, and where the recommended ones come from, as a comment."""
    family = family_of(settings.model)
    recommended = load_concept(settings.concept).recommended.get(family)
    source = recommended.source if recommended else "the package's defaults (the authors' for nudity on SD1.4)"
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

    layers = [attempt(lambda: read_yaml(file, "settings file")) or {} if file is not None else {}, dict(given)]
    settings = attempt(lambda: resolve(*layers))
    known = settings or Settings.model_construct(
        **{name: layer[name] for layer in layers for name in ("model", "concept") if isinstance(layer.get(name), str)}
    )
    attempt(lambda: load_concept(known.concept))
    attempt(lambda: family_of(known.model))
    if settings is None:
        return None, found
    if settings.pairs.folder is not None:
        from .pairs.store import check_pairs

        attempt(lambda: check_pairs(settings.pairs.folder))
    attempt(lambda: _writable(settings.output))
    return (None if found else attempt(lambda: resolve_settings(given, file))), found


def _writable(folder: Path) -> None:
    from .run import Run

    if folder.exists() and not folder.is_dir():
        raise DuoError(f"the output {folder} is a file", hint="choose another --output")
    existing = folder
    while not existing.exists():
        existing = existing.parent
    import os

    if not os.access(existing, os.W_OK):
        raise DuoError(f"the output folder {folder} cannot be written", hint="choose another --output")
    if folder.exists():
        with Run(folder).lock():
            pass
