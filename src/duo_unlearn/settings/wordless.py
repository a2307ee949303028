"""Pairs without prompts: what of a run's settings cannot be had from them, all at once and before anything is made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..erasers.interface import checked_options
from ..erasers.registry import ERASERS
from ..errors import DuoError
from ..pairs.manifest import MANIFEST, read_entries
from ..records import Pair
from ..runs.folder import Run
from .tree import Settings, place_of


def known_pairs(settings: Settings) -> list[Pair]:
    """The pairs that a run has, or those that a user brings it; none where it makes them, as these have prompts."""
    from ..pairs.own_pairs import find_pairs

    run, folder = Run(settings.output), settings.pairs.folder
    if (run.pairs / MANIFEST).exists():
        return [pair for pair in read_entries(run.pairs).pairs if pair.keep]
    return [] if folder is None else find_pairs(folder)


def check_words(settings: Settings, pairs: Sequence[Pair]) -> None:
    """Fail for an eraser or a floor that would read prompts which the pairs have not; the hint has all that to set."""
    eraser = ERASERS.get(settings.eraser)
    wordless = [pair.name for pair in pairs if not pair.has_prompts]
    if not wordless:
        return
    got = f"none or half for {len(wordless)} of {len(pairs)} pairs, {wordless[0]} first"
    whole = eraser.name if settings.floor is None else f"{settings.floor}+{eraser.name}"
    problem = f"{whole} would read prompts that the pairs have not"
    changes: dict[str, Any] = {}
    if len(wordless) == len(pairs):
        if eraser.for_wordless is None and "prompts" in eraser.reads:
            hint = "give prompts in a manifest.json; or take an eraser that reads images alone: --eraser duo"
            raise DuoError(problem, got=got, hint=hint)
        if settings.floor is not None and "prompts" in ERASERS.get(settings.floor).reads:
            changes["floor"] = None
    if eraser.for_wordless is not None:
        needed = eraser.for_wordless(checked_options(eraser, settings.own), pairs)
        changes |= {f"{place_of(eraser.name)}.{key}": value for key, value in needed.items()}
    if changes:
        hint = f"give prompts in a manifest.json; or put this behind the command: {as_words(changes)}"
        raise DuoError(problem, got=got, hint=hint)


def as_words(changes: Mapping[str, Any]) -> str:
    """Settings as the command line takes them, to be pasted. changes: dotted keys and their values."""
    return " ".join(f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in changes.items())
