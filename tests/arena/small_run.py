"""A run with drawn pairs and a random adapter, at a size that tests can afford."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duo_unlearn as duo
from duo_unlearn.session import Session

from ..drawn_pairs import draw_named_pairs
from ..random_adapter import random_adapter
from ..small_concept import small_concept

COUNTS = {
    "evaluate.prompts": 3,
    "evaluate.keep_prompts": 3,
    "evaluate.neighbour_prompts": 2,
    "evaluate.inversion_prompts": 2,
    "evaluate.inversion_steps": 2,
    "evaluate.inversion_batch": 2,
    "evaluate.steps": 4,
    "evaluate.batch": 16,
}


def reopen(folder: Path, **settings: Any) -> Session:
    """The run of a folder, quiet; settings with underscores for dots are given on top."""
    return duo.open_run(folder, settings={k.replace("__", "."): v for k, v in settings.items()}, quiet=True)


def make_run(folder: Path, settings: Mapping[str, Any] | None = None) -> Session:
    """A new run in FOLDER/run with three drawn pairs, their prompts, and an adapter of random weights as its edit."""
    draw_named_pairs(folder / "mine", 3)
    given = {**COUNTS, "concept": small_concept(folder), "pairs.folder": str(folder / "mine"), **(settings or {})}
    run = duo.open_run(folder / "run", settings=given, quiet=True)
    duo.make_pairs(run)
    random_adapter(run.model, run.run.edit("duo"), size=0.08, concept="sword")
    return run


def pictures(folder: Path) -> dict[str, bytes]:
    """Every sampled image of a run by its path."""
    places = (folder / "attempts", folder / "originals")
    return {str(p.relative_to(folder)): p.read_bytes() for place in places for p in sorted(place.rglob("*.png"))}


def stamps(folder: Path) -> dict[str, int]:
    """When every sampled image, part and finding of a run was written, by its path."""
    places = (folder / "attempts", folder / "originals")
    files = [p for place in places for p in sorted(place.rglob("*")) if p.is_file() and p.name != "group.json"]
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in files}
