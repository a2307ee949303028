"""From what a user gives to the settings of a run, layer by layer, without loading a model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..concepts.store import load_concept
from ..erasers.duo.paper import explain, paper_settings
from ..erasers.robust.recipe import check_said, robust_settings, said_of_duo, source_of, without_lacking
from ..errors import DuoError
from ..families.identify import family_of
from ..families.registry import FAMILIES
from ..runs.folder import Run
from ..storage.forms import read_yaml
from .tree import DUO, Settings, as_yaml, merge, read_settings, resolve

SHARED_BY_ALL: Final = ("mixed_precision", "gradient_checkpointing", "captions")
"""What of DUO's training decides how a run's model and pairs are loaded, whatever trains it."""


def resolve_settings(given: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """The settings of a run. Every command that takes settings calls it.

    The layers, weakest first: the defaults, the family's guidance, what the concept recommends for the model's family,
    what the run folder says, the file, what is given. A run folder keeps its settings, so a later stage needs the
    folder alone.
    """
    run, *new = settings_layers(read_yaml(file, "settings file") if file is not None else {}, dict(given or {}))
    wanted = merge(*new)
    if wanted.get("recipe", run.get("recipe")) != run.get("recipe") and run:
        run = _without_recipe(run, resolve(run, *new))
    settings = resolve(run, *new)
    concept, family = load_concept(settings.concept), family_of(settings.model)
    if settings.recipe == "paper":
        has_beta = "beta" in merge(run, *new).get("train", {})
        base = paper_settings(concept, family, settings.train.beta if has_beta else None)
        if "recipe" in wanted or "beta" in wanted.get("train", {}):
            # The recipe is asked for now: what the run had of its numbers gives way, but for β.
            run = {**run, "train": {k: v for k, v in run.get("train", {}).items() if k not in base["train"]}}
    else:
        recommended = concept.recommended.get(family)
        base = recommended.settings if recommended else {}
    said: dict[str, Any] = {}
    if settings.recipe == "robust":
        train = resolve(base, run, *new).train
        base = merge(base, robust_settings(concept, FAMILIES.get(family), train))
        # What is said of DUO's own objective now is said of the same objective here, above what the run has of it.
        said = said_of_duo(train, wanted.get("train", {}), scaled=family not in concept.robust)
    # Pairs that a user brings need no words, so captions are the user's own choice there.
    wordless = {"train": {"captions": "none"}} if settings.pairs.folder is not None else {}
    guidance = FAMILIES.get(family).guidance
    usual = {"pairs": {"guidance": guidance}, "evaluate": {"guidance": guidance}}
    resolved = resolve(usual, base, wordless, run, said, *new)
    if _is_robust(resolved):
        check_said(wanted.get("train", {}), resolved.train, resolve(base, wordless, run).train)
    return resolved


def check_read(given: Mapping[str, Any], settings: Settings, file: Path | None = None) -> None:
    """Fail for options of DUO's training that a user gives now, where the run's eraser is another, which reads its own.

    given, file: as `resolve_settings` took them for these settings. A value that changes nothing is let through.
    """
    said = [name for name in given.get("train", {}) if name not in SHARED_BY_ALL]
    if not said or settings.eraser == DUO or _is_robust(settings):
        return
    before = resolve_settings({key: value for key, value in given.items() if key != "train"}, file).train
    if unread := [name for name in said if getattr(settings.train, name) != getattr(before, name)]:
        got = ", ".join(f"train.{name}" for name in unread)
        hint = f"leave it out, or set an option of erasers.{settings.eraser}: `duo erasers` has them"
        raise DuoError(f"the eraser {settings.eraser} reads no option of DUO's training", got=got, hint=hint)


def for_another_run(settings: Settings) -> dict[str, Any]:
    """A run's settings as they are given to another one, whose pairs are copied from it; the folder is left to say."""
    known = settings.model_dump(mode="json", exclude={"output": True, "pairs": {"folder"}})
    return {**known, "train": without_lacking(known["train"])} if _is_robust(settings) else known


def as_kept(settings: Settings, name: str, known: object) -> str:
    """What to do where a run has another concept or seed than the settings. known: as its record has it.

    Of a concept its record has the name alone, and a file of the user's may have any.
    """
    path = Run(settings.output).settings
    kept = read_settings(path).get(name, known) if path.exists() else str(known).replace("-and-", "+")
    if kept == getattr(settings, name):
        return f"the name {known} in {kept} again, or another --output"
    return f"--{name} {shlex.quote(str(kept))}, or another --output"


def _is_robust(settings: Settings) -> bool:
    """Whether the recipe's own eraser trains, and not another one that was named beside the recipe."""
    return (settings.recipe, settings.eraser) == ("robust", "robust-duo")


def _without_recipe(run: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A run's settings without what its recipe chose: another one is asked for now. settings: as they are so far."""
    chosen = ("robust-duo", run.get("floor"))
    erasers = {name: options for name, options in run.get("erasers", {}).items() if name not in chosen}
    kept = {key: value for key, value in run.items() if key not in ("eraser", "floor", "recipe")}
    train = run.get("train", {})
    concept, family = load_concept(settings.concept), family_of(settings.model)
    if run.get("recipe") == "paper" and family in concept.paper:
        # A β of the user's own stays; what follows it there does not.
        numbers = {**paper_settings(concept, family, train.get("beta"))["train"], "beta": concept.paper[family].beta}
        train = {key: value for key, value in train.items() if key not in numbers or value != numbers[key]}
    return {**kept, "erasers": erasers, "train": train}


def settings_layers(file: Mapping[str, Any], given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a user and a run folder say, weakest first: the folder's settings, the file, what is given."""
    return [_run_layer(resolve(file, given).output), file, given]


def _run_layer(output: Path) -> dict[str, Any]:
    """The settings of a run that is in the folder already; the folder itself may have been moved."""
    path = Run(output).settings
    entries = read_settings(path) if path.exists() else {}
    return {key: value for key, value in entries.items() if key != "output"}


def describe(settings: Settings) -> str:
    """The settings as resolved, as YAML, and as a comment where the recommended ones come from."""
    return f"# {summary(settings)}\n{as_yaml(settings)}"


def summary(settings: Settings) -> str:
    """The model's family, and where the settings come from, in one line."""
    family = family_of(settings.model)
    recommended = load_concept(settings.concept).recommended.get(family)
    source = recommended.source if recommended else "the package's defaults (the authors' for nudity on SD1.4)"
    if settings.recipe == "robust":
        source = f"robust DUO: {source_of(load_concept(settings.concept), family)}"
    if settings.recipe == "paper":
        source = f"the authors' scripts: {explain(family, settings.train)}"
    if _run_layer(settings.output):
        source += f"; then those of the run in {settings.output}"
    return f"family {family}; recipe {settings.recipe}; recommended settings: {source}"
