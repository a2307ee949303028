"""The adapters of single steps that a training keeps, each a folder as an edit's, and taking one as an edit."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from ..edits.provenance import PROVENANCE, WEIGHTS, edit_hash
from ..errors import DuoError
from ..runs.folder import Run
from ..runs.metrics import read_lines
from ..storage.files import write_bytes

Save = Callable[[Path, int], object]
"""Writes the adapter as it is now, after a step, into a folder."""
HELD_OUT: Final = "held_out_preference"
"""The key of metrics.jsonl that says how good a step is: L_pref on the held-out pairs."""


def steps_kept(folder: Path) -> list[int]:
    """The steps whose adapters a training's folder keeps, in order."""
    return sorted(int(p.name) for p in folder.glob("[0-9]*") if p.name.isdecimal() and (p / PROVENANCE).is_file())


def best_step(lines: Iterable[Mapping[str, float]]) -> int | None:
    """The step with the lowest loss on the held-out pairs, the first of several; None where no line has one."""
    found = [(line[HELD_OUT], int(line["step"])) for line in lines if math.isfinite(line.get(HELD_OUT, math.nan))]
    return min(found)[1] if found else None


def keep_step(folder: Path, step: int, save: Save, *, most: int, best: int | None) -> None:
    """Keep a step's adapter, and let go of those that are neither among the `most` last ones nor the best."""
    if not most:
        return
    save(folder / f"{step:05}", step)
    for old in steps_kept(folder)[:-most]:
        if old != best:
            shutil.rmtree(folder / f"{old:05}")


def chosen_step(run: Run, name: str, step: int | None) -> int:
    """A step whose adapter a training keeps; None for the best one on the held-out pairs.

    One that is not kept is a DuoError, and so is a training that was not measured on held-out pairs.
    """
    kept = steps_kept(run.step_adapters(name))
    listed = f"kept steps: {', '.join(map(str, kept)) or 'none'}"
    if step is None:
        metrics = run.metrics(name)
        step = best_step(read_lines(metrics)) if metrics.exists() else None
        if step is None:
            hint = "name a step, or train in another folder with `pairs.held_out` above 0"
            raise DuoError(f"no step of {name} was measured on held-out pairs", got=listed, hint=hint)
    if step not in kept:
        hint = "one of them; `train.keep_checkpoints` says how many a training keeps"
        raise DuoError(f"the training of {name} keeps no step {step}", got=listed, hint=hint)
    return step


def is_taken(run: Run, name: str, step: int) -> bool:
    """Whether a kept adapter is an edit of the run already."""
    target = run.edit(f"{name}-{step}")
    return (target / PROVENANCE).exists() and edit_hash(target) == edit_hash(run.step_adapters(name) / f"{step:05}")


def take_step(run: Run, name: str, step: int) -> str:
    """Make the kept adapter of a step an edit of the run, and give the edit's name: "duo-300"."""
    source, target = run.step_adapters(name) / f"{step:05}", run.edit(f"{name}-{step}")
    edit_hash(source)
    # The hash last: a copy that was cut off in the middle is none.
    for file in (WEIGHTS, PROVENANCE):
        write_bytes(target / file, (source / file).read_bytes())
    return target.name
