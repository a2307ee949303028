"""A run of drawn pairs whose stages take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duo_unlearn as duo
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session

from ..drawn_pairs import draw_pairs
from ..random_adapter import random_adapter
from ..small_concept import small_concept

COUNTS = {"steps": 4, "prompts": 2, "keep_prompts": 3, "neighbour_prompts": 1, "inversion_prompts": 0}
PAIRS, SLICES = 24, 3
"""So many pairs that no slice is empty but once in five thousand: a picture's bytes differ between versions of PIL."""
FEW: dict[str, Any] = {
    "train__max_train_steps": 1, "train__train_batch_size": 1, "train__rank": 2, "train__preview_steps": 0,
    "pairs__held_out": 0.0,
}  # fmt: skip


def new_run(folder: Path, count: int = 3, **settings: Any) -> Session:
    """A run in FOLDER/run with some drawn pairs. Settings are given with two underscores for a dot."""
    draw_pairs(folder / "mine", count)
    counts = {f"evaluate.{name}": count for name, count in COUNTS.items()}
    given = {"concept": small_concept(folder), "pairs.folder": str(folder / "mine"), "pairs.trust": True, **counts}
    run = duo.open_run(
        folder / "run", settings={**given, **{k.replace("__", "."): v for k, v in settings.items()}}, quiet=True
    )
    duo.make_pairs(run)
    return run


def sliced_run(folder: Path) -> Path:
    """The folder of a run of drawn pairs with its slices, one step each."""
    run = new_run(folder, PAIRS, **FEW)
    duo.slice_run(run.run.folder, SLICES)
    return run.run.folder


def slices_of(folder: Path) -> list[Path]:
    """The folders of a run's slices."""
    return [Run(folder).slices / str(i + 1) for i in range(SLICES)]


def reopen(run: Session) -> Session:
    """The same run as a later command opens it."""
    return duo.open_run(run.run.folder, quiet=True)


def edited_run(folder: Path) -> Session:
    """A run that has a random adapter as its edit."""
    run = new_run(folder)
    random_adapter(run.model, run.run.edit("duo"), size=0.08, concept="sword")
    return reopen(run)
